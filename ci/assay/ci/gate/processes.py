"""What a process of one side loads and runs, and a process that runs it for whoever counts from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assay.benchmarks import sampling
from assay.errors import BenchmarkError

__all__ = ["Contender", "SideError", "run_under"]

_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What one process loads and measures: ``python`` is the interpreter of the side that it belongs to.

    ``inputs`` is an .npz file, ``cpus`` the logical CPUs to stay on; samples are taken for at least
    ``seconds``. ``environment`` holds variables for the process besides those of this one. ``phase`` is that
    of a language model, ``prefill`` or ``decode``, whose input is the array ``prompt`` of token ids.
    """

    python: Path
    artifact: Path
    inputs: Path
    threads: int
    cpus: tuple[int, ...]
    seconds: float = 0.2
    least_samples: int = 3
    environment: dict[str, str] = field(default_factory=dict)
    phase: str | None = None

    def subject(self) -> dict[str, str | None]:
        """What the process is told of it."""
        return {"artifact": str(self.artifact), "inputs": str(self.inputs), "phase": self.phase}


class SideError(BenchmarkError):
    """A process of ``side``, ``base`` or ``head``, failed."""

    def __init__(self, side: str, message: str) -> None:
        super().__init__(message)
        self.side = side


def run_under(prefix: Sequence[str], contenders: Sequence[Contender], *, calls: int, timeout: float) -> None:
    """Run each of ``contenders`` of one side ``calls`` times, in one process that ``prefix`` starts.

    Raises BenchmarkError, with its last line of stderr, where it fails or takes longer than ``timeout``
    seconds.
    """
    first = contenders[0]
    job = {
        "subjects": [each.subject() for each in contenders],
        "threads": first.threads,
        "cpus": first.cpus,
        "calls": calls,
        "sampling": sampling.__file__,
    }
    # -P keeps the worker's folder off the module path: what lies there must not stand in for a package.
    command = [*prefix, str(first.python), "-P", str(_WORKER)]
    with tempfile.TemporaryDirectory(prefix="assay-gate-run-") as folder:
        try:
            done = subprocess.run(
                command,
                input=json.dumps(job).encode(),
                capture_output=True,
                timeout=timeout,
                env={**os.environ, **first.environment},
                cwd=folder,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"A process did not finish within {timeout:g} s.") from None
        except OSError as error:
            raise BenchmarkError(f"A process cannot be started: {error.strerror or error}.") from None
    if done.returncode:
        raise BenchmarkError(_failure(done))


def _failure(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1].strip() if lines else "it wrote nothing to stderr"
    if done.returncode > 0:
        return last
    try:
        name = signal.Signals(-done.returncode).name
    except ValueError:
        name = f"signal {-done.returncode}"
    return f"A process was ended by {name} ({last})."
