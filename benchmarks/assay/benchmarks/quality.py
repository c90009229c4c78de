"""How near the outputs of an artifact are to the reference's, as its verification found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from assay.results.record import Metric

if TYPE_CHECKING:
    from assay.runtime.manifest import Level

__all__ = ["quality_of"]


def quality_of(level: Level) -> dict[Metric, float]:
    """The worst of all outputs and sizes by metric; nothing where the code was compared with nothing.

    Errors as ``VerifiedCase`` has them; ``error`` is the absolute one as a part of its tolerance.
    """
    cases = level.verification.cases
    found: dict[Metric, list[float]] = {
        "error": [
            case.max_absolute_error / case.absolute_tolerance for case in cases if case.absolute_tolerance > 0
        ],
        "absolute_error": [case.max_absolute_error for case in cases],
        "relative_error": [case.max_relative_error for case in cases],
        "cosine_distance": [max(0.0, 1.0 - case.cosine_similarity) for case in cases],
    }
    worst = {metric: max(values) for metric, values in found.items() if values}
    # Where the reference is zero everywhere, a relative error is no number.
    return {metric: value for metric, value in worst.items() if math.isfinite(value)}
