"""Whether this machine is fit for measuring now, and how much wider intervals become where it is not.

Rounds of adjacent processes in random order keep a false alarm rare on any machine; what an unfit one costs
is power, and trust in small effects. A finding that is not fit therefore widens what the gate claims, by a
factor that is a convention and stands beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from assay.ci.gate.report import Finding
from assay.runtime.cpu import available_cpus

__all__ = ["check_fitness", "cpu_times", "timer_noise", "widening_of"]

_ROOT = Path("/")
_WATCH_SECONDS = 1.0
_MOST_WIDENING = 2.0
# Shares of the CPUs' time, above which the machine is unfit, and far above which it is worse.
_BUSY, _VERY_BUSY = 0.1, 0.5
_STOLEN = 0.01
_NOISE, _MUCH_NOISE = 0.05, 0.25


def check_fitness(
    threads: int, *, root: Path = _ROOT, watch_seconds: float = _WATCH_SECONDS
) -> tuple[Finding, ...]:
    """Findings on load, time stolen by other machines, governor, turbo, the cgroup's limits, and timing.

    To be called while nothing of the gate runs: it watches the machine for ``watch_seconds``.
    """
    before = cpu_times(root)
    time.sleep(watch_seconds)
    after = cpu_times(root)
    return (
        _load(before, after),
        _steal(before, after),
        _governor(root),
        _turbo(root),
        _limits(root, threads),
        _timing(timer_noise()),
    )


def widening_of(findings: Sequence[Finding]) -> float:
    """The factor for intervals: the product of those of the findings, at most 2."""
    return min(_MOST_WIDENING, math.prod(finding.widening for finding in findings))


def cpu_times(root: Path = _ROOT) -> tuple[float, float, float] | None:
    """Ticks of all CPUs so far: busy, stolen, and all together; None where the system does not tell."""
    line = (_read(root / "proc/stat") or "").partition("\n")[0].split()
    if not line or line[0] != "cpu" or len(line) < 9:
        return None
    ticks = [float(value) for value in line[1:9]]
    idle, stolen = ticks[3] + ticks[4], ticks[7]
    return sum(ticks) - idle - stolen, stolen, sum(ticks)


def timer_noise(clock: Callable[[], float] = time.perf_counter, repeats: int = 200) -> float:
    """How much longer the same small loop takes in one of ten cases than in most: 0.05 for 5%."""
    times = []
    for _ in range(repeats):
        start = clock()
        for _ in range(5_000):
            pass
        times.append(clock() - start)
    times.sort()
    middle, ninth = times[repeats // 2], times[repeats * 9 // 10]
    return ninth / middle - 1 if middle > 0 else math.inf


Ticks = tuple[float, float, float] | None


def _shares(before: Ticks, after: Ticks) -> tuple[float, float] | None:
    if before is None or after is None or after[2] <= before[2]:
        return None
    passed = after[2] - before[2]
    return (after[0] - before[0]) / passed, (after[1] - before[1]) / passed


def _load(before: Ticks, after: Ticks) -> Finding:
    shares = _shares(before, after)
    if shares is None:
        return _fit("load", "the system does not tell how busy it is")
    text = f"its CPUs were {shares[0]:.0%} busy with other work before the rounds"
    if shares[0] <= _BUSY:
        return _fit("load", text)
    return _unfit("load", text, 1.25 if shares[0] > _VERY_BUSY else 1.1)


def _steal(before: Ticks, after: Ticks) -> Finding:
    shares = _shares(before, after)
    if shares is None:
        return _fit("steal", "the system does not tell of stolen time")
    text = f"other virtual machines took {shares[1]:.1%} of its time"
    return _fit("steal", text) if shares[1] <= _STOLEN else _unfit("steal", text, 1.1)


def _governor(root: Path) -> Finding:
    folder = root / "sys/devices/system/cpu"
    governors = {_read(folder / f"cpu{cpu}/cpufreq/scaling_governor") for cpu in available_cpus()} - {None}
    if not governors:
        return _fit("governor", "the system does not tell of a frequency governor")
    text = f"the frequency governor is {', '.join(sorted(filter(None, governors)))}"
    return _fit("governor", text) if governors == {"performance"} else _unfit("governor", text, 1.05)


def _turbo(root: Path) -> Finding:
    folder = root / "sys/devices/system/cpu"
    off, boost = _read(folder / "intel_pstate/no_turbo"), _read(folder / "cpufreq/boost")
    if off is None and boost is None:
        return _fit("turbo", "the system does not tell of turbo frequencies")
    if off == "0" or boost == "1":
        return _unfit("turbo", "turbo is on: frequencies change with heat and neighbours", 1.05)
    return _fit("turbo", "turbo is off")


def _limits(root: Path, threads: int) -> Finding:
    quota = _quota(root)
    if quota is None:
        return _fit("cgroup", "no limit on CPU time")
    text = f"its cgroup may use {quota:.3g} CPUs"
    # The measured process is not alone: the one that waits for it needs a little, too.
    return _fit("cgroup", text) if quota >= threads + 0.5 else _unfit("cgroup", text, 1.25)


def _quota(root: Path) -> float | None:
    """CPUs that the cgroup may use at once, of version 2 or 1; None without a limit."""
    groups = (_read(root / "proc/self/cgroup") or "").splitlines()
    mine = next((line.partition("::")[2] for line in groups if line.startswith("0::")), "/").strip("/")
    base = root / "sys/fs/cgroup"
    for folder in (base / mine, base):
        fields = (_read(folder / "cpu.max") or "").split()
        if len(fields) == 2 and fields[0].isdecimal() and fields[1].isdecimal() and int(fields[1]):
            return int(fields[0]) / int(fields[1])
    quota, period = _read(base / "cpu/cpu.cfs_quota_us"), _read(base / "cpu/cpu.cfs_period_us")
    if quota and period and quota.isdecimal() and period.isdecimal() and int(period):
        return int(quota) / int(period)
    return None


def _timing(noise: float) -> Finding:
    text = f"the same loop takes {noise:.0%} longer in one of ten cases than in most"
    if noise <= _NOISE:
        return _fit("timing", text)
    return _unfit("timing", text, 1.25 if noise > _MUCH_NOISE else 1.1)


def _fit(check: str, detail: str) -> Finding:
    return Finding(check=check, fit=True, detail=detail)


def _unfit(check: str, detail: str, widening: float) -> Finding:
    return Finding(check=check, fit=False, detail=detail, widening=widening)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
