"""A kernel profile as a table for a terminal, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from assay.benchmarks.profiling import KernelProfile, Profile

__all__ = ["profile_json", "profile_summary", "profile_table"]

# Noise alone brings a good kernel this far; small ones go further.
_OVER_THE_ROOF = 1.1
_LARGEST = 8


def profile_table(profile: Profile, *, title: str) -> Table:
    """One row for each kernel, slowest first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    table.add_column("kernel", overflow="fold")
    for heading in ("calls", "time", "share", "GFLOP/s", "GB/s", "% of roof"):
        table.add_column(heading, justify="right")
    table.add_column("bound")
    for kernel in profile.kernels:
        table.add_row(*(Text(cell) for cell in _cells(kernel)))
    return table


def _cells(kernel: KernelProfile) -> list[str]:
    from assay.results.report import format_value

    fraction, rate = kernel.roof_fraction, kernel.rate
    return [
        kernel.kernel + ("" if kernel.scheduled else " (left to TVM)"),
        str(kernel.calls),
        format_value(kernel.seconds, "s"),
        f"{kernel.share:.1%}",
        f"{rate / 1e9:.3g}" if rate else "",
        f"{kernel.bandwidth / 1e9:.3g}" if kernel.touched else "",
        "" if fraction is None else f"{fraction:.0%}",
        kernel.bound or "",
    ]


def profile_summary(profile: Profile) -> list[str]:
    """Lines below the table: the sum beside the unobserved run, and the ceilings."""
    from assay.results.report import format_value

    def seconds(value: float) -> str:
        return format_value(value, "s")

    lines = [
        f"Kernels: {seconds(profile.kernel_seconds)} of a run of {seconds(profile.unobserved)} "
        f"(median of {profile.runs} unobserved; {seconds(profile.observed)} observed)."
    ]
    part = abs(profile.outside) / profile.unobserved
    if profile.outside >= 0:
        lines.append(
            f"Outside kernels: {seconds(profile.outside)} ({part:.1%}), the virtual machine's "
            f"{profile.own_calls} calls for memory and shapes, and passing arrays in and out."
        )
    else:
        lines.append(
            f"The kernels add up to {seconds(-profile.outside)} ({part:.1%}) more than the unobserved run: "
            "observing a kernel adds about a microsecond to it, and caches cool between kernels."
        )
    if any(not kernel.scheduled for kernel in profile.kernels):
        lines.append("Kernels left to TVM run its own loops: no schedule fits them.")
    ceilings = profile.ceilings
    if profile.weights:
        lines.append(_weights(profile))
    if ceilings is not None:
        levels = ", ".join(f"{level.name} {level.bandwidth / 1e9:.3g} GB/s" for level in ceilings.levels)
        threads = f"{ceilings.threads} thread" + ("" if ceilings.threads == 1 else "s")
        lines.append(
            f"Ceilings of {ceilings.cpu}, {threads}, measured {ceilings.date}: "
            f"{ceilings.flops / 1e9:.4g} GFLOP/s, {levels}, launch {seconds(ceilings.launch)}."
        )
    if any((kernel.roof_fraction or 0.0) > _OVER_THE_ROOF for kernel in profile.kernels[:_LARGEST]):
        lines.append(
            "Some are over the roof: their algorithm needs fewer operations than their definition "
            "(Winograd), or the ceilings were measured on a busy machine (--measure-ceilings)."
        )
    return lines


def _weights(profile: Profile) -> str:
    """What an unobserved run reads of weights: a decoder's step is bound by little else."""
    line = f"Weights: {profile.weights / 1e6:.4g} MB a run, {profile.weight_bandwidth / 1e9:.3g} GB/s"
    if profile.ceilings is None or profile.weight_fraction is None:
        return line + "."
    level = profile.ceilings.level_of(profile.weights)
    return f"{line}: {profile.weight_fraction:.0%} of what {level.name} gives."


def profile_json(profile: Profile, *, model: str, sizes: dict[str, int]) -> dict[str, Any]:
    """The profile as an object for JSON: seconds, bytes, operations, and those a second."""
    import msgspec

    return {
        "model": model,
        "sizes": sizes,
        "threads": profile.threads,
        "runs": profile.runs,
        "kernel_seconds": profile.kernel_seconds,
        "unobserved_seconds": profile.unobserved,
        "observed_seconds": profile.observed,
        "outside_seconds": profile.outside,
        "weight_bytes": profile.weights,
        "weight_bandwidth": profile.weight_bandwidth,
        "weight_fraction": profile.weight_fraction,
        "ceilings": msgspec.to_builtins(profile.ceilings),
        "kernels": [
            {
                "kernel": kernel.kernel,
                "calls": kernel.calls,
                "seconds": kernel.seconds,
                "share": kernel.share,
                "operations": kernel.operations,
                "bytes": kernel.touched,
                "weight_bytes": kernel.weights,
                "operations_per_second": kernel.rate,
                "bytes_per_second": kernel.bandwidth,
                "roof_seconds": kernel.roof_seconds,
                "roof_fraction": kernel.roof_fraction,
                "bound": kernel.bound.value if kernel.bound else None,
                "scheduled": kernel.scheduled,
            }
            for kernel in profile.kernels
        ],
    }
