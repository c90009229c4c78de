from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.ci.gate.decision import Verdict
from assay.ci.gate.report import Finding, GateReport, GateSettings, Row, SideInfo, status_of
from assay.results.record import Machine

MACHINE = Machine(
    cpu="A CPU",
    architecture="x86_64",
    features=("avx2",),
    cores=2,
    cpus=2,
    memory_bytes=1 << 30,
    system="Linux 6",
    governor=None,
    virtualisation=None,
)


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


@pytest.fixture
def make_row() -> Callable[..., Row]:
    def make(verdict: str = "unchanged", **changes: Any) -> Row:
        fields: dict[str, Any] = {
            "benchmark": "net/threads=1",
            "model": "net",
            "threads": 1,
            "metric": "latency",
            "unit": "s",
            "verdict": Verdict(verdict),
            "fails": verdict == "regression",
            "undecided": verdict == "inconclusive",
            "threshold": 0.03,
            "base": 0.001,
            "head": 0.0011,
            "ratio": 1.1,
            "interval": (1.05, 1.15),
            "confidence": 0.99,
            "rounds": 10,
            "reason": "Because.",
        }
        return Row(**{**fields, **changes})

    return make


@pytest.fixture
def make_report() -> Callable[..., GateReport]:
    def make(*rows: Row, **changes: Any) -> GateReport:
        side = SideInfo(ref="main", commit="0123456789" * 4, worktree=False, dirty=False, own_code=False)
        status = status_of(rows)
        fields: dict[str, Any] = {
            "status": status,
            "exit_code": status.exit_code,
            "time": "2026-01-02T03:04:05Z",
            "seconds": 12.5,
            "base": side,
            "head": side,
            "machine": MACHINE,
            "fitness": (Finding(check="load", fit=False, detail="its CPUs were busy", widening=1.25),),
            "settings": GateSettings(
                threshold=0.03,
                confidence=0.99,
                budget=600.0,
                widening=1.25,
                seed=0,
                target="native",
                scheme=None,
                profile="release",
                sizes=(),
            ),
            "rows": rows,
            "notes": ("A note.",),
            "versions": {"assay": "0"},
        }
        return GateReport(**{**fields, **changes})

    return make


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
