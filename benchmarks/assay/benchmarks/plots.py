"""A profile as a picture: the kernels under the roofline, and the time of each as a bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import MissingDependencyError, StorageError, UsageError

if TYPE_CHECKING:
    from assay.benchmarks.ceilings import Ceilings
    from assay.benchmarks.profiling import KernelProfile, Profile

__all__ = ["FORMATS", "check_plot", "plot_profile"]

FORMATS = (".svg", ".png")
_MOST_BARS = 12
# Colours that stay apart for readers who see few (Okabe and Ito, 2008).
_COLOURS = {"compute": "#0072B2", "memory": "#D55E00", "overhead": "#999999", None: "#999999"}


def check_plot(path: Path) -> None:
    """Raise UsageError for a format that is not drawn, MissingDependencyError without matplotlib."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot writes {' or '.join(FORMATS)}, not {path.suffix or path.name!r}.")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependencyError("matplotlib", "plot") from None


def plot_profile(profile: Profile, path: Path, *, title: str) -> None:
    """Write the picture to ``path`` (.svg or .png). Raises as ``check_plot`` does, and StorageError."""
    check_plot(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from assay.runtime.atomic import replace_file

    with matplotlib.rc_context({"svg.hashsalt": "assay", "font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        roof, bars = figure.subplots(1, 2, width_ratios=(1, 1.1))
        _draw_roofline(roof, profile)
        _draw_bars(bars, profile)
        figure.suptitle(title, fontsize=11)
        try:
            with replace_file(path) as temporary:
                metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
                figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=150, metadata=metadata)
        except OSError as error:
            raise StorageError(f"The plot cannot be written to {path}: {error.strerror or error}.") from error


def _draw_roofline(axes: Any, profile: Profile) -> None:
    drawn = [kernel for kernel in profile.kernels if kernel.intensity and kernel.rate]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte of arguments")
    axes.set_ylabel("GFLOP/s")
    axes.grid(visible=True, which="major", linewidth=0.3)
    intensities = [kernel.intensity or 1.0 for kernel in drawn] or [1.0]
    low, high = min(0.05, *intensities) / 1.5, max(200.0, *intensities) * 1.5
    if profile.ceilings is not None:
        _draw_roofs(axes, profile.ceilings, low, high)
    for bound in dict.fromkeys(kernel.bound for kernel in drawn):
        chosen = [kernel for kernel in drawn if kernel.bound == bound]
        axes.scatter(
            [kernel.intensity for kernel in chosen],
            [(kernel.rate or 0.0) / 1e9 for kernel in chosen],
            s=[15 + 700 * kernel.share for kernel in chosen],
            color=_COLOURS[bound],
            alpha=0.65,
            linewidths=0.5,
            edgecolors="black",
            label=f"bound by {bound}" if bound else None,
            zorder=3,
        )
    rates = [(kernel.rate or 0.0) / 1e9 for kernel in drawn]
    top = profile.ceilings.flops / 1e9 if profile.ceilings else max(rates, default=1.0)
    axes.set_xlim(low, high)
    axes.set_ylim(max(1e-3, min([*rates, top / 100]) / 2), top * 2.2)
    axes.set_title("Roofline (area: share of time)")
    if any(kernel.bound for kernel in drawn):
        for handle in axes.legend(loc="lower right", fontsize=8).legend_handles:
            if hasattr(handle, "set_sizes"):
                handle.set_sizes([40])


def _draw_roofs(axes: Any, ceilings: Ceilings, low: float, high: float) -> None:
    """The peak, and a slope for each level of memory; readers tell them apart by their dashes."""
    peak = ceilings.flops / 1e9
    axes.plot([low, high], [peak, peak], color="black", linewidth=1.2)
    axes.annotate(
        f"multiply-add, {peak:.0f} GFLOP/s", (high / 1.2, peak), ha="right", va="bottom", fontsize=8,
        xytext=(0, 2), textcoords="offset points",
    )  # fmt: skip
    dashes = ["solid", (0, (6, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))]
    for number, level in enumerate(ceilings.levels):
        speed = level.bandwidth / 1e9
        axes.plot(
            [low, peak / speed], [low * speed, peak], color="black", linewidth=1.0,
            linestyle=dashes[number % len(dashes)], label=f"{level.name}, {speed:.0f} GB/s",
        )  # fmt: skip


def _draw_bars(axes: Any, profile: Profile) -> None:
    shown = profile.kernels[:_MOST_BARS]
    rest = profile.kernels[_MOST_BARS:]
    labels = [_label(kernel.kernel) + ("" if kernel.calls == 1 else f" x{kernel.calls}") for kernel in shown]
    values = [kernel.seconds * 1e3 for kernel in shown]
    colours = [_COLOURS[kernel.bound] for kernel in shown]
    if rest:
        labels.append(f"{len(rest)} others")
        values.append(sum(kernel.seconds for kernel in rest) * 1e3)
        colours.append("#DDDDDD")
    labels.append("outside kernels")
    values.append(max(0.0, profile.outside) * 1e3)
    colours.append("#FFFFFF")
    places = list(range(len(values)))[::-1]
    axes.barh(places, values, color=colours, edgecolor="black", linewidth=0.5, height=0.75)
    axes.set_yticks(places, labels, fontsize=7)
    axes.set_xlabel("milliseconds of one run")
    axes.set_title(f"Time of the kernels, {profile.unobserved * 1e3:.3g} ms unobserved")
    _mark_roofs(axes, shown, places)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_roofs(axes: Any, shown: Sequence[KernelProfile], places: Sequence[int]) -> None:
    """A line in each bar where the kernel would end at the roof."""
    roofs = [
        (place, kernel.roof_seconds * 1e3)
        for place, kernel in zip(places, shown, strict=False)
        if kernel.roof_seconds is not None
    ]
    if roofs:
        axes.vlines(
            [roof for _, roof in roofs],
            [place - 0.375 for place, _ in roofs],
            [place + 0.375 for place, _ in roofs],
            color="black",
            linewidth=1.6,
            label="at the roof",
        )
        axes.legend(loc="lower right", fontsize=8)


def _label(kernel: str, most: int = 38) -> str:
    return kernel if len(kernel) <= most else f"{kernel[: most - 1]}…"
