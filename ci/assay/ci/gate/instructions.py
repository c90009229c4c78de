"""Instructions that the kernels of a run take: by the CPU's counter, else in Valgrind's simulated CPU.

They do not depend on what else the machine does, so that a change of one percent shows where times swing by
twenty. Callgrind counts inside of the artifact's kernels alone, in one process for all models, because
starting Python takes it half a minute. perf counts whole processes: the difference between a few runs and
more is that of runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from assay.ci.gate.processes import Contender, run_under
from assay.errors import BenchmarkError

__all__ = ["count_instructions", "kernel_instructions", "perf_counts"]

_KERNELS = "__tvm_ffi_*"
_TIMEOUT_SECONDS = 1200.0
_FEW, _MORE = 2, 22
# Python's own work must be the same in each process.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}


def count_instructions(
    base: Mapping[str, Contender], head: Mapping[str, Contender]
) -> tuple[dict[str, tuple[float, float]], str | None]:
    """Instructions of one run by (base, head) for each model, and why some or all are not known, if so.

    All run with one thread. Both sides are counted in the same way.
    """
    if not base:
        return {}, None
    probe = next(iter(base.values()))
    try:
        if perf_counts():
            found = [{name: _by_perf(one) for name, one in side.items()} for side in (base, head)]
        elif shutil.which("valgrind"):
            with ThreadPoolExecutor(max_workers=min(2, len(probe.cpus) + 1)) as pool:
                found = list(pool.map(_by_callgrind, (base, head)))
        else:
            return {}, "perf counts no instructions here, and valgrind is not installed"
    except BenchmarkError as error:
        return {}, f"they could not be counted: {error.message}"
    both = {name: (found[0][name], found[1][name]) for name in base if name in found[0] and name in found[1]}
    if len(both) < len(base):
        return both, "some models call no kernels that have names"
    return both, None


def perf_counts(command: str = "perf") -> bool:
    """Whether ``perf`` counts instructions on this machine; on many virtual ones it does not."""
    if shutil.which(command) is None:
        return False
    done = subprocess.run(
        [command, "stat", "-x,", "-e", "instructions:u", "true"], capture_output=True, text=True, check=False
    )
    return _perf_value(done.stderr) is not None


def _perf_value(text: str) -> float | None:
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2].startswith("instructions") and fields[0].isdecimal():
            return float(fields[0])
    return None


def _by_perf(contender: Contender) -> float:
    counts = []
    with TemporaryDirectory(prefix="assay-gate-perf-") as name:
        for calls in (_FEW, _MORE):
            out = Path(name) / f"{calls}.csv"
            prefix = ["perf", "stat", "-x,", "-e", "instructions:u", "-o", str(out)]
            run_under(prefix, [_counted(contender)], calls=calls, timeout=_TIMEOUT_SECONDS)
            value = _perf_value(out.read_text())
            if value is None:
                raise BenchmarkError("perf gave no count.")
            counts.append(value)
    return max(0.0, (counts[1] - counts[0]) / (_MORE - _FEW))


def _by_callgrind(contenders: Mapping[str, Contender]) -> dict[str, float]:
    with TemporaryDirectory(prefix="assay-gate-callgrind-") as name:
        out = Path(name) / "callgrind.out"
        prefix = [
            "valgrind",
            "--quiet",
            "--tool=callgrind",
            f"--toggle-collect={_KERNELS}",
            f"--callgrind-out-file={out}",
        ]
        counted = [_counted(one) for one in contenders.values()]
        run_under(prefix, counted, calls=1, timeout=_TIMEOUT_SECONDS)
        artifacts = {name: one.artifact for name, one in contenders.items()}
        return kernel_instructions(out.read_text(errors="replace").splitlines(), artifacts)


def _counted(contender: Contender) -> Contender:
    environment = {**contender.environment, **_ENVIRONMENT}
    return replace(contender, threads=1, cpus=contender.cpus[:1], environment=environment)


_SPEC = re.compile(r"(c?(?:ob|fn))=\((\d+)\)(?: (.*))?$")


def kernel_instructions(lines: Sequence[str], artifacts: Mapping[str, Path]) -> dict[str, float]:
    """Instructions inside of the kernels of each artifact, callees included, from callgrind's output.

    The format is that of Valgrind's manual, "Callgrind Format Specification": names are given once, with a
    number that stands for them later; the line after ``calls=`` is the cost of a callee, callees of its own
    included.
    """
    folders = {name: f"{path.resolve()}/" for name, path in artifacts.items()}
    names: dict[tuple[str, str], str] = {}
    current = {"ob": "", "fn": ""}
    owner: str | None = None
    found: dict[str, float] = {}
    for line in lines:
        spec = _SPEC.match(line)
        if spec is not None:
            key, number, name = spec.groups()
            kind = key.removeprefix("c")
            if name is not None:
                names[kind, number] = name
            if kind == key:
                current[kind] = names.get((kind, number), "")
                owner = _owner(current, folders)
        elif owner is not None and line[:1] in "0123456789+-*":
            cost = line.split()[1:2]
            found[owner] = found.get(owner, 0.0) + float(cost[0] if cost else 0)
    return found


def _owner(current: Mapping[str, str], folders: Mapping[str, str]) -> str | None:
    """The model that a function belongs to, if it is a kernel."""
    if not current["fn"].startswith(_KERNELS.rstrip("*")):
        return None
    return next((name for name, folder in folders.items() if current["ob"].startswith(folder)), None)
