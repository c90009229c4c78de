"""Weights that are not finite are refused where they are read: every output would be NaN."""

from __future__ import annotations

from typing import Any

from assay.errors import ModelError

__all__ = ["check_finite"]


def check_finite(name: str, *arrays: Any) -> None:
    """Raises ModelError, naming the tensor, where an array of floats (None: no array) is not finite.

    A block's scale counts as a weight.
    """
    import numpy as np

    for array in arrays:
        if array is None:
            continue
        wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
        if wrong:
            raise ModelError(f"The tensor {name!r} has {wrong} weights or scales that are not finite.")
