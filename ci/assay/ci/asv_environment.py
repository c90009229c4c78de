"""An environment type for asv, ``overlay``: shared dependencies below the sources of one commit.

asv's own types install the project and all that it needs for every environment, and build a wheel for every
commit. This one makes a virtual environment without packages, and puts two kinds of folders on its path:
those of the commit's checkout, which asv makes, and the ``site-packages`` of the Python that runs asv. Going
to another commit is a checkout and one small file. A commit that requires other packages than are installed
there fails to build, and asv goes on with the next.

asv loads this module by the entry ``plugins`` of ``asv.conf.json``.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from asv import environment, util
from asv.console import log
from packaging.requirements import Requirement

__all__ = ["Overlay", "shared_folders", "source_folders", "unmet_requirements"]

_PATH_FILE = "overlay.pth"
# The extras of the project that the suites need.
_EXTRAS = ("compile",)


def shared_folders() -> list[Path]:
    """The folders with installed packages of this Python, in the order of its path."""
    names = {"site-packages", "dist-packages"}
    return [Path(entry).resolve() for entry in sys.path if Path(entry).name in names and Path(entry).is_dir()]


def source_folders(checkout: Path) -> list[Path]:
    """The folders of a checkout that an editable installation puts on the path.

    Raises ValueError where its ``pyproject.toml`` names none that is there.
    """
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
        named = project["tool"]["hatch"]["build"]["dev-mode-dirs"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise ValueError(f"{checkout} has no folders of sources in its pyproject.toml: {error}.") from error
    found = [checkout / name for name in named if (checkout / name).is_dir()]
    if not found:
        raise ValueError(f"{checkout} has none of the folders of sources that its pyproject.toml names.")
    return found


def unmet_requirements(checkout: Path) -> list[str]:
    """What the project in ``checkout`` requires and this Python has not installed, or in another version."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    extras = project.get("optional-dependencies", {})
    listed = [*project.get("dependencies", []), *(each for name in _EXTRAS for each in extras.get(name, []))]
    unmet = []
    for requirement in map(Requirement, listed):
        if requirement.name == project.get("name") or not (
            requirement.marker is None or requirement.marker.evaluate()
        ):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append(f"{requirement} (not installed)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement} ({version} is installed)")
    return unmet


class Overlay(environment.Environment):  # type: ignore[misc]
    """One environment for all commits; see the module."""

    tool_name = "overlay"
    matches_python_fallback = False

    def __init__(self, conf: Any, python: str, requirements: Any, tagged_env_vars: Any) -> None:
        running = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if python != running:
            raise environment.EnvironmentUnavailable(
                f"overlay shares the packages of the Python that runs asv, which is {running}, not {python}"
            )
        if requirements:
            raise environment.EnvironmentUnavailable(
                f"overlay installs nothing: install {', '.join(requirements)} beside asv"
            )
        self._requirements: dict[str, str] = {}
        super().__init__(conf, python, requirements, tagged_env_vars)

    @classmethod
    def matches(cls, python: str) -> bool:
        """Whether this type can give ``python``, a version such as ``3.11``."""
        return python == f"{sys.version_info[0]}.{sys.version_info[1]}"

    def check_presence(self) -> bool:
        """Whether the environment is there and its Python starts."""
        python = Path(self._path, "bin", "python")
        if not self._path_file().parent.is_dir() or not python.exists():
            return False
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0

    def _setup(self) -> None:
        log.info(f"Creating environment {self.name}")
        util.check_call([sys.executable, "-m", "venv", "--without-pip", self._path])

    def _path_file(self) -> Path:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        return Path(self._path, "lib", version, "site-packages", _PATH_FILE)

    def _uninstall_project(self) -> None:
        self._set_installed_commit_hash(None)
        self._path_file().unlink(missing_ok=True)

    def _build_project(self, repo: Any, commit_hash: str, build_dir: str) -> None:
        """Nothing is built: the sources are Python."""

    def _install_project(self, repo: Any, commit_hash: str, build_dir: str) -> None:
        """Put the sources in ``build_dir`` on the path, before the shared packages.

        Raises ProcessError, which asv takes for a build that failed.
        """
        checkout = Path(build_dir)
        try:
            sources = source_folders(checkout)
        except ValueError as error:
            raise _failed(str(error)) from error
        unmet = unmet_requirements(checkout)
        if unmet:
            raise _failed(f"Packages that commit {commit_hash[:8]} requires: {', '.join(unmet)}.")
        installed = [str(each) for each in shared_folders() if any(each.glob("assay/*"))]
        if installed:
            raise _failed(
                f"Assay is installed in {', '.join(installed)} and would mix with the commit's own sources; "
                "install it with pip install -e."
            )
        self._path_file().write_text("".join(f"{each}\n" for each in (*sources, *shared_folders())))

    def run(self, args: list[str], **kwargs: Any) -> Any:
        """What asv's own types give: the output of the environment's Python with ``args``."""
        log.debug(f"Running '{' '.join(args)}' in {self.name}")
        return self.run_executable("python", args, **kwargs)


def _failed(message: str) -> Exception:
    """An error that asv takes for a failed build, logged here because asv itself only says that it failed."""
    log.error(message)
    wrapped: Exception = util.ProcessError(["overlay"], 1, "", message)
    return wrapped
