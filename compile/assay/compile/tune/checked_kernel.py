"""A kernel on operands, which counts only if it gives what was expected. Needs NumPy and TVM's ffi alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WrongError", "checked_runner"]

# Copies of B that take turns, so that they come from where they come from in a model.
_ROTATED_BYTES = 12 << 20
_MOST_COPIES = 8
# Of the largest value: sums in another order differ by some rounding errors.
_TOLERANCE = 1e-4

Array = npt.NDArray[np.float32]


class WrongError(Exception):
    """A kernel whose numbers are not NumPy's."""


def checked_runner(
    kernel: Callable[..., None], a: Array, b: Array, expected: Array, threads: int
) -> Callable[[], None]:
    """A function that runs ``kernel(a, b, output)``, on the next copy of B each time.

    It was run once, with ``threads``, and gave ``expected``. Raises WrongError where it did not.
    """
    from assay.runtime.drivers.threads import call_with_threads

    run, output = _runner(kernel, a, b, expected)
    call_with_threads(threads, run)
    error = float(np.abs(output - expected).max())
    if not error <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise WrongError(f"differs from NumPy's by {error:.3g}")
    return run


def _runner(
    kernel: Callable[..., None], a: Array, b: Array, expected: Array
) -> tuple[Callable[[], None], Array]:
    """The function, and the array that the kernel writes."""
    from assay.runtime.drivers.ffi import import_tvm_ffi
    from assay.runtime.memory import empty_aligned

    ffi = import_tvm_ffi()

    def tensor(array: Array) -> tuple[Any, Any]:
        memory = empty_aligned(array.shape, array.dtype)
        np.copyto(memory, array)
        return memory, ffi.from_dlpack(memory)

    copies = max(1, min(_MOST_COPIES, _ROTATED_BYTES // max(b.nbytes, 1)))
    kept = [tensor(b) for _ in range(copies)]
    kept_a, a_tensor = tensor(a)
    output, out_tensor = tensor(np.full_like(expected, np.nan))
    turns = itertools.cycle(b_tensor for _, b_tensor in kept)
    arrays = (kept, kept_a)  # the tensors only look at them

    def run() -> None:
        assert arrays
        kernel(a_tensor, next(turns), out_tensor)

    return run, output
