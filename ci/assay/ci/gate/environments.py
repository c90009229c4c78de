"""The Python environment of a side: its own code of Assay, and the packages that are installed here.

A side that is a commit of Assay gets an environment of its own whose only content is a list of folders: the
side's packages of ``assay``, then those that this interpreter finds packages in. Nothing is installed, so
that it takes a fraction of a second. A side of any other repository is built and run by the Assay that is
installed.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import py_compile
import shutil
import site
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import GateInfrastructureError

__all__ = ["Environment", "is_assay", "make_environment"]

# Runs when the interpreter of a side starts. Of what else brings packages of `assay`, such as this checkout
# in editable mode, nothing may be left: a module that the side lacks must not be found there.
_START = """import os
import site
import sys

OWN = {own}
for folder in {folders}:
    site.addsitedir(folder)
PACKAGES = {folders}
kept = [p for p in sys.path if p in PACKAGES or not os.path.isdir(os.path.join(p, "assay"))]
sys.path[:] = [*kept[:1], *OWN, *kept[1:]]
"""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """``python`` runs a side's own code; ``notes`` say what the side asks for and is not installed."""

    python: Path
    notes: tuple[str, ...] = ()


def is_assay(tree: Path) -> bool:
    """Whether ``tree`` is a checkout of Assay itself."""
    return (tree / "runtime" / "assay" / "runtime").is_dir() and (tree / "pyproject.toml").is_file()


def make_environment(tree: Path, folder: Path) -> Environment:
    """An environment in ``folder`` for the files in ``tree``; this process's where they are not Assay's.

    Raises GateInfrastructureError where it cannot be made.
    """
    if not is_assay(tree):
        return Environment(python=Path(sys.executable))
    own = [str(path.parent) for path in sorted(tree.glob("*/assay")) if path.is_dir()]
    packages = [path for path in _package_folders() if Path(path).is_dir()]
    try:
        venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
        place = next(folder.glob("lib/python*/site-packages"))
        # Where a folder is used again, bytecode of the same second and size would pass for the new text's.
        shutil.rmtree(place / "__pycache__", ignore_errors=True)
        (place / "_assay_side.py").write_text(
            _START.format(own=json.dumps(own), folders=json.dumps(packages))
        )
        (place / "_assay_side.pth").write_text("import _assay_side\n")
        _compile(tree / "runtime")
    except (OSError, StopIteration) as error:
        raise GateInfrastructureError(f"No environment can be made in {folder}: {error}.") from error
    return Environment(python=folder / "bin" / "python", notes=tuple(_unmet(tree)))


def _compile(folder: Path) -> None:
    """Bytecode of what every process of a side imports: where Python is told to write none, each compiles it.

    It is compared with the text by content, for commits may be checked out in one place within a second.
    """
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(folder, force=True, quiet=2, invalidation_mode=mode)


def _package_folders() -> list[str]:
    """Where this interpreter has packages installed."""
    users = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return list(dict.fromkeys([*site.getsitepackages(), *users]))


def _unmet(tree: Path) -> list[str]:
    """What the side's ``pyproject.toml`` asks for and this environment has not, one sentence each."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        project: dict[str, Any] = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        return [f"its pyproject.toml cannot be read ({error})"]
    asked = [*project.get("dependencies", ()), *project.get("optional-dependencies", {}).get("compile", ())]
    found = []
    for line in asked:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"it asks for {line}, which is not installed")
            continue
        if requirement.specifier and not requirement.specifier.contains(version, prereleases=True):
            found.append(f"it asks for {line}, and {version} is installed")
    return found
