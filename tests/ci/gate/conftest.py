from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ...gate_reports import make_report, make_row  # noqa: F401 - fixtures


class Git:
    """A repository in a folder, with commits that need no configuration."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self("init", "--quiet", "--initial-branch=main")

    def __call__(self, *arguments: str) -> str:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
            **{
                f"GIT_{who}_{what}": "somebody@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        done = subprocess.run(
            ["git", "-C", str(self.root), "-c", "commit.gpgsign=false", *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        return done.stdout.strip()

    def commit(self, **files: str | bytes | None) -> str:
        """Commit files by name (``__`` stands for a dot); None removes one. Gives the commit."""
        for name, content in files.items():
            path = self.root / name.replace("__", ".")
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        self("add", "--all")
        self("commit", "--quiet", "--allow-empty", "--message", "change")
        return self("rev-parse", "HEAD")


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path / "repository")


# A stand-in for the runtime: the artifact is a Python file that says what loading and running do.
_RUNTIME = """
class Model:
    def __init__(self, code):
        self.scope = {}
        exec(code, self.scope)
    def run(self, inputs):
        return self.scope["run"](inputs)
def load(artifact, threads):
    return Model(open(artifact).read())
class Sequence(list):
    def truncate(self, length):
        del self[length:]
class Decoder(Model):
    def sequence(self):
        return Sequence()
    def forward(self, parts):
        import numpy
        (sequence, tokens), = parts
        self.scope["forward"](list(sequence), tokens)
        sequence += tokens
        return numpy.eye(1, 9, 7)
def load_decoder(artifact, context, threads):
    return Decoder(open(artifact).read())
"""


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """The environment in which ``assay.runtime`` is the stand-in."""
    package = tmp_path / "stand-in" / "assay"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "runtime.py").write_text(_RUNTIME)
    return {"PYTHONPATH": str(package.parent)}
