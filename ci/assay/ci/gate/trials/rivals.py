"""Other rules on the same process runs: what ``asv continuous`` decides, and a t-test on samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from assay.errors import MissingDependencyError

__all__ = ["asv_finds_slower", "t_test_finds_slower"]

Runs = Sequence[Sequence[float]]


def asv_finds_slower(base: Runs, head: Runs, *, factor: float, recorded: bool) -> bool:
    """Whether asv calls the head slower, from the samples of each process in seconds, by its own functions.

    ``factor`` is its option of that name, 1.1 by default. ``recorded``: whether samples are kept
    (``--record-samples``): then it compares them by a Mann-Whitney test, else intervals of medians. Raises
    MissingDependencyError without asv.
    """
    try:
        from asv.commands.compare import _is_result_better
        from asv_runner.statistics import compute_stats
    except ImportError as error:
        raise MissingDependencyError("asv", "dev") from error
    sides = []
    for runs in (base, head):
        samples = [sample for run in runs for sample in run]
        value, stats = compute_stats(samples, 1)
        sides.append((value, (stats, samples if recorded else None)))
    (base_value, base_stats), (head_value, head_stats) = sides
    return bool(_is_result_better(base_value, head_value, base_stats, head_stats, factor))


def t_test_finds_slower(base: Runs, head: Runs, *, level: float, threshold: float = 0.0) -> bool:
    """Whether Welch's t-test on all samples, as if each were independent, calls the head slower.

    ``level`` is that of the one-sided test. The ratio of means must be above 1 plus ``threshold`` besides.
    """
    from scipy.stats import ttest_ind

    first, second = (np.concatenate([np.asarray(run, np.float64) for run in runs]) for runs in (base, head))
    if not second.mean() > (1 + threshold) * first.mean():
        return False
    return bool(ttest_ind(second, first, equal_var=False, alternative="greater").pvalue < level)
