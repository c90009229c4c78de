"""Reference kernels, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suites._settings import SETTINGS
from suites._suite import RUN_ID, Samples, Suite, missing_skips, of_processes, tracked

if TYPE_CHECKING:
    from assay.benchmarks.kernel_bench import BuiltKernel

__all__ = ["Kernels", "built_kernel", "kernel_names"]


def kernel_names() -> list[str]:
    """The kernels that the settings choose."""
    from assay.benchmarks.kernels import choose_kernels

    return [spec.name for spec in choose_kernels(SETTINGS.kernels)]


def built_kernel(kernel: str, target: str) -> BuiltKernel:
    """The kernel, from the build cache where it has it. Skips where this machine cannot run the target."""
    from assay.benchmarks.kernel_bench import build_kernels
    from assay.benchmarks.kernels import kernels
    from assay.runtime.levels import choose_level

    with missing_skips():
        (found,) = build_kernels([kernels()[kernel]], target=target, cache=None)
        choose_level(found.build.manifest)
    return found


class Kernels(Suite):
    """Operands in NumPy arrays, all of them given at run time."""

    param_names = ("kernel", "target", "threads")
    params = (kernel_names(), SETTINGS.targets, SETTINGS.threads)

    def setup(self, kernel: str, target: str, threads: int) -> None:
        """Build."""
        self.kernel = built_kernel(kernel, target)

    @tracked("seconds", rounds=SETTINGS.rounds)
    def track_latency(self, kernel: str, target: str, threads: int) -> Samples:
        """Seconds of a call."""
        from assay.benchmarks.kernel_bench import bench_kernels

        records = bench_kernels(
            [self.kernel],
            run_id=RUN_ID,
            engines_to_run=["assay"],
            threads=threads,
            rounds=SETTINGS.processes,
            seconds_per_round=SETTINGS.seconds,
        )
        return of_processes(records, "latency")
