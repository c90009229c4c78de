"""Builds of one side, by the command line of that side's own Assay."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from assay.ci.gate.environments import Environment
from assay.errors import GateInfrastructureError, MissingDependencyError, StorageError

__all__ = ["Build", "BuildOptions", "Outcome", "build", "is_path", "make_inputs"]

# Exit codes of StorageError and MissingDependencyError: the machine's, or that of its set-up.
_NOT_THE_CHANGES_FAULT = (StorageError.exit_code, MissingDependencyError.exit_code)


class Outcome(StrEnum):
    """What came of a build."""

    BUILT = "built"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How models are built, in words of ``assay build``; None and empty mean its default."""

    target: str = "native"
    scheme: str | None = None
    profile: str = "release"
    timeout: float = 1800.0

    def arguments(self) -> list[str]:
        """The options of ``assay build``."""
        scheme = [] if self.scheme is None else ["--scheme", self.scheme]
        return ["--target", self.target, "--profile", self.profile, *scheme]


@dataclass(frozen=True, kw_only=True)
class Build:
    """What came of building one model of one side.

    ``artifact`` is there if it was built. ``cpu_seconds`` is what the build took of all CPUs, None where the
    cache had it: unlike the time that passes, it hardly depends on what else the machine does. ``reason``
    says why there is no artifact.
    """

    outcome: Outcome
    artifact: Path | None = None
    cpu_seconds: float | None = None
    reason: str | None = None


def build(
    model: str, tree: Path, environment: Environment, artifact: Path, cache: Path, options: BuildOptions
) -> Build:
    """Build ``model``, a name or a path inside of ``tree``, to ``artifact``.

    Raises GateInfrastructureError where the disk is full, or a package is not installed.
    """
    if is_path(model) and not (tree / model).exists():
        return Build(outcome=Outcome.MISSING, reason=f"There is no file {model}.")
    arguments = ["build", model, "-o", str(artifact), "--cache", str(cache), *options.arguments()]
    before = _cpu_seconds()
    done = _assay(environment, tree, arguments, options.timeout)
    taken = _cpu_seconds() - before
    if isinstance(done, str):
        return Build(outcome=Outcome.BROKEN, reason=done)
    if done.returncode in _NOT_THE_CHANGES_FAULT:
        raise GateInfrastructureError(f"{model} cannot be built here: {_reason(done)}")
    if done.returncode:
        reason = _reason(done)
        unknown = reason.startswith("There is no model named")
        return Build(outcome=Outcome.MISSING if unknown else Outcome.BROKEN, reason=reason)
    if not artifact.exists():
        return Build(outcome=Outcome.BROKEN, reason="assay build ended well, and wrote no artifact.")
    return Build(
        outcome=Outcome.BUILT, artifact=artifact, cpu_seconds=None if _was_cached(done.stdout) else taken
    )


def make_inputs(
    artifact: Path,
    tree: Path,
    environment: Environment,
    folder: Path,
    *,
    sizes: Sequence[str],
    seed: int,
    timeout: float,
) -> Path | str:
    """Inputs for an artifact in a new ``folder``, by `assay run` of its side: a file, or why there is none.

    The file is .npz; ``sizes`` are DIM=N.
    """
    arguments = ["run", str(artifact), "--record", str(folder), "--seed", str(seed), "--threads", "1"]
    for size in sizes:
        arguments += ["--size", size]
    done = _assay(environment, tree, arguments, timeout)
    if isinstance(done, str):
        return done
    if done.returncode:
        return _reason(done)
    return next(iter(sorted(folder.glob("*.npz"))), "assay run recorded no inputs.")


def is_path(model: str) -> bool:
    """Whether a model is given as a file; of a folder, `assay build` says whether it is there."""
    return model.endswith((".onnx", ".gguf"))


def _assay(
    environment: Environment, tree: Path, arguments: Sequence[str], timeout: float
) -> subprocess.CompletedProcess[str] | str:
    command = [str(environment.python), "-P", "-m", "assay.cli.main", *arguments, "--json"]
    try:
        return subprocess.run(
            command,
            cwd=tree,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"assay {arguments[0]} did not finish within {timeout:g} s."
    except OSError as error:
        return f"{environment.python} cannot be started: {error.strerror or error}."


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The error that the command told, or the last line of its traceback."""
    lines = done.stderr.strip().splitlines()
    for line in reversed(lines):
        try:
            told: dict[str, Any] = json.loads(line)["error"]
            return str(told["message"])
        except (ValueError, KeyError, TypeError):
            continue
    if done.returncode < 0:
        return f"It was ended by signal {-done.returncode}."
    return lines[-1].strip() if lines else f"It ended with exit code {done.returncode}, and said nothing."


def _cpu_seconds() -> float:
    """What all processes took of CPUs that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _was_cached(stdout: str) -> bool:
    """Whether the cache had the build, by what `assay build --json` printed; yes where that is unknown."""
    try:
        (result,) = json.loads(stdout)
        return bool(result["cached"])
    except (ValueError, KeyError, TypeError):
        return True
