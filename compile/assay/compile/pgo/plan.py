"""What a profile says is worth doing: code for single sizes, workloads to search, kernels for one thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.compile.pgo.data import KernelSample, ProfileData
from assay.compile.schedules.choices import Choice, Workload, WorkloadKind
from assay.compile.schedules.tiles import choose_panel_width
from assay.compile.targets.target import VectorUnit
from assay.compile.tune.tuner import Question

__all__ = ["Key", "hot_sizes", "key_of_sizes", "questions", "serial_kernels"]

Key = tuple[tuple[str, int], ...]
"""A size for every symbolic dimension, in the order of their names."""

# Sizes seen in fewer of the runs are left to the code for all sizes.
_LEAST_SHARE = 0.05
_MOST_SIZES = 4
# Workloads that take less of the time are not searched.
_LEAST_WORKLOAD_SHARE = 0.02
_MOST_WORKLOADS = 12
# Slower with all threads than with one by more than this, and worth telling apart from noise.
_SLOWER = 1.02
_LEAST_SECONDS = 2e-6


def key_of_sizes(sizes: Mapping[str, int]) -> Key:
    """The key of sizes by dimension."""
    return tuple(sorted(sizes.items()))


def hot_sizes(profile: ProfileData) -> list[dict[str, int]]:
    """The sizes seen often enough for code of their own, those with the most time first."""
    runs: dict[Key, int] = {}
    seconds: dict[Key, float] = {}
    for sample in profile.runs:
        if sample.sizes:
            key = key_of_sizes(sample.sizes)
            runs[key] = runs.get(key, 0) + sample.runs
            seconds[key] = seconds.get(key, 0.0) + sample.seconds
    total = sum(runs.values())
    often = [key for key in runs if runs[key] >= _LEAST_SHARE * total]
    return [dict(key) for key in sorted(often, key=lambda key: -seconds[key])[:_MOST_SIZES]]


def questions(
    profile: ProfileData,
    workloads: Mapping[Key, Mapping[str, Workload]],
    default: Key,
    hot: Sequence[Mapping[str, int]],
    main_choices: Mapping[str, Choice] | None,
    unit: VectorUnit,
) -> list[Question]:
    """The workloads with the most time: of the code for all sizes, or, given its choices, of the hot sizes.

    The code for all sizes decides how weights are packed; code for one size takes the panels as they are.
    """
    weights: dict[tuple[Workload, int | None], float] = {}
    main = workloads[default]
    hot_keys = {key_of_sizes(sizes) for sizes in hot}
    for sample in _with_one_thread(profile):
        first = main.get(sample.kernel)
        if first is None:
            continue
        key = key_of_sizes(sample.sizes)
        question: tuple[Workload, int | None]
        if main_choices is None:
            question = (first, None)
        elif key in hot_keys and workloads[key][sample.kernel] != first:
            question = (workloads[key][sample.kernel], _width(first, main_choices, unit))
        else:
            continue
        weights[question] = weights.get(question, 0.0) + sample.seconds
    total = sum(sample.seconds for sample in _with_one_thread(profile))
    ordered = sorted(weights.items(), key=lambda item: (-item[1], item[0][0].key))
    return [
        Question(workload=workload, width=width, weight=weight)
        for (workload, width), weight in ordered[:_MOST_WORKLOADS]
        if weight >= _LEAST_WORKLOAD_SHARE * total
    ]


def _width(workload: Workload, choices: Mapping[str, Choice], unit: VectorUnit) -> int | None:
    """Columns of the panels into which the code for all sizes packs; None where nothing is packed ahead."""
    if workload.kind is WorkloadKind.BATCHED_MATMUL:
        return None
    size = workload.sizes
    if workload.kind is WorkloadKind.CONV2D:
        rows, cols = size["batch"] * size["height"] * size["width"], size["outputs"] // size["groups"]
    else:
        rows, cols = size["rows"], size["cols"]
    chosen = choices.get(workload.key, Choice()).panel_width
    return chosen or choose_panel_width(unit, rows, cols)


def _with_one_thread(profile: ProfileData) -> list[KernelSample]:
    """The samples with the fewest threads: shares of time without what waking threads costs."""
    fewest = min((sample.threads for sample in profile.kernels), default=1)
    return [sample for sample in profile.kernels if sample.threads == fewest]


def serial_kernels(profile: ProfileData) -> frozenset[str]:
    """Kernels that took longer with several threads than with one, over the whole workload."""
    seconds: dict[str, dict[int, float]] = {}
    calls: dict[str, int] = {}
    for sample in profile.kernels:
        each = seconds.setdefault(sample.kernel, {})
        each[sample.threads] = each.get(sample.threads, 0.0) + sample.seconds
        calls[sample.kernel] = calls.get(sample.kernel, 0) + sample.calls
    slower = set()
    for kernel, by_threads in seconds.items():
        several = [taken for threads, taken in by_threads.items() if threads > 1]
        if 1 not in by_threads or not several:
            continue
        lost = min(several) - by_threads[1]
        if min(several) > _SLOWER * by_threads[1] and lost > _LEAST_SECONDS * calls[kernel] / len(by_threads):
            slower.add(kernel)
    return frozenset(slower)
