"""An environment type for asv, ``overlay``: packages that are installed here below the sources of one commit.

asv's own types install the project and all that it needs for every environment, and build a wheel for every
commit. This one takes the environment of a side of `assay gate`: no packages of its own, the folders of the
commit's checkout, which asv makes, and those of the packages of the Python that runs asv. Going to another
commit is a checkout and one small file. A commit that asks for other packages than are installed fails to
build, as its figures would be those of other packages, and asv goes on with the next.

asv loads this module by the entry ``plugins`` of ``asv.conf.json``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from asv import environment, util
from asv.console import log

from assay.ci.gate.environments import is_assay, make_environment
from assay.errors import AssayError

__all__ = ["Overlay"]


class Overlay(environment.Environment):  # type: ignore[misc]
    """One environment for all commits; see the module."""

    tool_name = "overlay"
    matches_python_fallback = False

    def __init__(self, conf: Any, python: str, requirements: Any, tagged_env_vars: Any) -> None:
        if not self.matches(python):
            raise environment.EnvironmentUnavailable(
                f"overlay has the packages of the Python that runs asv, which is {_running()}, not {python}"
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
        return python == _running()

    def check_presence(self) -> bool:
        """Whether the environment is there and its Python starts."""
        try:
            done = subprocess.run([Path(self._path, "bin", "python"), "-c", ""], check=False)
        except OSError:
            return False
        return done.returncode == 0

    def _setup(self) -> None:
        log.info(f"Creating environment {self.name}")
        util.check_call([sys.executable, "-m", "venv", "--without-pip", self._path])

    def _uninstall_project(self) -> None:
        """Forget the commit; the next one takes its place."""
        self._set_installed_commit_hash(None)

    def _build_project(self, repo: Any, commit_hash: str, build_dir: str) -> None:
        """Nothing is built: the sources are Python."""

    def _install_project(self, repo: Any, commit_hash: str, build_dir: str) -> None:
        """Put the sources in ``build_dir`` before the shared packages.

        Raises ProcessError, which asv takes for a build that failed.
        """
        checkout = Path(build_dir)
        if not is_assay(checkout):
            raise _failed(f"Commit {commit_hash[:8]} is none of Assay.")
        try:
            made = make_environment(checkout, Path(self._path))
        except AssayError as error:
            raise _failed(str(error)) from error
        if made.notes:
            raise _failed(f"Commit {commit_hash[:8]}: {'; '.join(made.notes)}.")

    def run(self, args: list[str], **kwargs: Any) -> Any:
        """What asv's own types give: the output of the environment's Python with ``args``."""
        log.debug(f"Running '{' '.join(args)}' in {self.name}")
        return self.run_executable("python", args, **kwargs)


def _running() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _failed(message: str) -> Exception:
    """The error of a failed build; logged, because asv itself only says that it failed."""
    log.error(message)
    wrapped: Exception = util.ProcessError(["overlay"], 1, "", message)
    return wrapped
