"""What this machine can do at most, measured: the roofs that kernels are compared with.

Measured once for a CPU and number of threads, in a process of its own, and kept in the user's cache folder
with the date; ``python -m assay.benchmarks.ceilings --threads N`` measures and prints them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from assay.benchmarks.machine import cache_sizes, choose_cpus
from assay.errors import BenchmarkError
from assay.progress import Progress, SilentProgress
from assay.results.record import utc_now
from assay.runtime.atomic import replace_file
from assay.runtime.cpu import detect_cpu

__all__ = ["Ceilings", "MemoryLevel", "find_ceilings", "measure_ceilings"]

_TIMEOUT_SECONDS = 120.0
_DRAM = "DRAM"
_FLOAT_BYTES = 4
# A sample must be short to fall between two disturbances, and long beside the launch of a kernel.
_SAMPLE_SECONDS = 5e-4
_SECONDS_PER_CEILING = 0.5


class MemoryLevel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A level of memory: how much of it ``threads`` have together, and how fast they read it, in bytes/s.

    ``capacity`` is None for the outermost.
    """

    name: str
    capacity: int | None
    bandwidth: float


class Ceilings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Roofs of one machine with ``threads`` threads.

    ``flops``: float32 operations a second of multiply-adds on registers. ``levels``: from the innermost
    cache measured to DRAM. ``triad``: bytes a second of ``a = b + 3 * c`` in DRAM, without the lines that a
    store reads first. ``launch``: seconds of a kernel that shares next to no work between the threads.
    """

    cpu: str
    threads: int
    date: str
    flops: float
    levels: tuple[MemoryLevel, ...]
    triad: float
    launch: float

    def level_of(self, size: int) -> MemoryLevel:
        """The innermost level that holds ``size`` bytes."""
        fitting = (level for level in self.levels if level.capacity is None or size <= level.capacity)
        return next(fitting)


def find_ceilings(
    threads: int, *, refresh: bool = False, folder: Path | None = None, progress: Progress | None = None
) -> Ceilings:
    """The ceilings of this machine with ``threads`` threads: known ones, or measured now.

    ``refresh`` measures them again; ``folder`` is where they are kept (default: the user's cache folder).
    Raises MissingDependencyError where they have to be measured and the compiler is not installed,
    BenchmarkError when measuring fails, UsageError for more threads than CPUs.
    """
    path = (folder or _folder()) / f"{_key(threads)}.json"
    if not refresh:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Ceilings)
        except (OSError, msgspec.MsgspecError):
            pass  # not measured yet, or by another version
    with (progress or SilentProgress()).step(f"measure this machine's ceilings, threads: {threads}"):
        found = measure_ceilings(threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return found


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay" / "ceilings"


def _key(threads: int) -> str:
    cpu = detect_cpu()
    described = [cpu.machine, cpu.system, cpu.name, *sorted(cpu.features), len(choose_cpus(1)), threads]
    return hashlib.sha256(repr(described).encode()).hexdigest()[:24]


def measure_ceilings(threads: int) -> Ceilings:
    """Measure in a fresh process, pinned to as many CPUs as threads. Raises as ``find_ceilings`` does."""
    import assay.benchmarks.ceiling_kernels  # noqa: F401  so that a missing package is told from here

    cpus = choose_cpus(threads)
    environment = {**os.environ, "TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-P", "-m", "assay.benchmarks.ceilings", "--threads", str(threads)]
    command += ["--cpus", ",".join(map(str, cpus))]
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError("The ceilings of this machine could not be measured in time.") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise BenchmarkError(f"The ceilings of this machine could not be measured: {lines[-1]}")
    return msgspec.json.decode(done.stdout, type=Ceilings)


def _measure(threads: int) -> Ceilings:
    import numpy as np

    from assay.benchmarks.ceiling_kernels import build_ceiling_kernels
    from assay.compile.tvm_import import import_tvm

    kernels = build_ceiling_kernels()
    tensor = import_tvm().runtime.tensor
    x = tensor(np.full(1 << 12, 0.5, np.float32))
    out = tensor(np.zeros(threads << 12, np.float32))

    def multiply_add(steps: int) -> Callable[[], object]:
        return lambda: kernels.multiply_add(x, out, threads, steps)

    one = 10_000
    steps = max(one, int(one * _SAMPLE_SECONDS / _best(multiply_add(one), 0.01)))
    flops = threads * steps * kernels.flops_per_step / _best(multiply_add(steps))

    def elements(size: float) -> int:
        return max(1, int(size / _FLOAT_BYTES / threads) // kernels.granule) * kernels.granule

    def bandwidth(size: float) -> float:
        length = elements(size)
        data = tensor(np.ones(length * threads, np.float32))
        moved = length * threads * _FLOAT_BYTES
        passes = max(1, int(_SAMPLE_SECONDS * 2e10 * threads / moved))
        return passes * moved / _best(lambda: kernels.read(data, out, threads, length, passes))

    caches = _shared(threads)
    largest = max(capacity for _, capacity in caches) if caches else 0
    beyond = max(64 << 20, 4 * largest)
    levels = [
        MemoryLevel(name=name, capacity=capacity, bandwidth=bandwidth(capacity / 2))
        for name, capacity in caches
    ]
    levels.append(MemoryLevel(name=_DRAM, capacity=None, bandwidth=bandwidth(beyond)))
    return Ceilings(
        cpu=detect_cpu().name,
        threads=threads,
        date=utc_now(),
        flops=flops,
        levels=tuple(levels),
        triad=_triad(kernels, tensor, threads, elements(beyond / 2)),
        launch=_best(lambda: kernels.launch(x, out, threads)),
    )


def _triad(kernels: Any, tensor: Any, threads: int, length: int) -> float:
    import numpy as np

    arrays = [tensor(np.ones(length * threads, np.float32)) for _ in range(3)]
    seconds = _best(lambda: kernels.triad(*arrays, threads, length))
    return 3 * length * threads * _FLOAT_BYTES / seconds


def _shared(threads: int) -> list[tuple[str, int]]:
    """Levels of cache beyond the first, and how much of each ``threads`` threads have together."""
    return [
        (f"L{level}", size * (threads if private else 1))
        for level, size, private in cache_sizes()
        if level > 1
    ]


def _best(call: Callable[[], object], seconds: float = _SECONDS_PER_CEILING) -> float:
    """The least seconds of a call: a ceiling is what the machine does undisturbed."""
    best = float("inf")
    end = perf_counter() + seconds
    while True:
        start = perf_counter()
        call()
        now = perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m assay.benchmarks.ceilings", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", help="logical CPUs to stay on, with commas between")
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)
    if options.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(number) for number in options.cpus.split(",")})
    print(msgspec.json.format(msgspec.json.encode(_measure(options.threads)), indent=2).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
