"""Weights larger than a device's buffers, in parts: products by columns, tables by rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of

__all__ = ["rows_of_parts", "slices", "split_large_weights"]

# Parts start at multiples of this, so that tiles of a part are whole.
_GRAIN = 64


def split_large_weights(module: Any, most_bytes: int | None) -> Any:
    """``module`` whose products and gathers of rows have weights of at most ``most_bytes`` each.

    Other operators keep theirs. None: no limit.
    """
    if most_bytes is None:
        return module
    for variable, function in module.functions_items():
        if isinstance(function, relax.Function):
            module.update_func(variable, _Splitter(most_bytes).visit_expr(function))
    return relax.transform.Normalize()(module)


@mutator
class _Splitter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self.most_bytes = most_bytes
        self.parts: dict[tuple[Any, int], list[Any]] = {}

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        name = getattr(call.op, "name", "")
        if name == "relax.matmul" and (parts := self._split(call.args[1], 1)) is not None:
            products = [relax.op.matmul(call.args[0], part, call.attrs.out_dtype) for part in parts]
            return relax.op.concat([self.builder_.emit(product) for product in products], -1)
        if name == "relax.take" and call.attrs.axis is not None and int(call.attrs.axis) == 0:
            parts = self._split(call.args[0], 0)
            if parts is None:
                return call
            indices, mode, tables = call.args[1], call.attrs.mode, parts
            counts = [int(part.ty.shape[0]) for part in parts]
            return rows_of_parts(
                self.builder_, indices, counts, lambda i, at: relax.op.take(tables[i], at, 0, mode)
            )
        return call

    def _split(self, weight: Any, axis: int) -> list[Any] | None:
        """Parts of a matrix along ``axis``; None where it is small enough, or none."""
        array = array_of(weight)
        if array is None or array.ndim != 2 or array.nbytes <= self.most_bytes:
            return None
        if (weight, axis) not in self.parts:
            self.parts[weight, axis] = [relax.const(each) for each in slices(array, axis, self.most_bytes)]
        return self.parts[weight, axis]


def slices(array: npt.NDArray[Any], axis: int, most_bytes: int) -> list[npt.NDArray[Any]]:
    """Contiguous copies of parts of ``array`` along ``axis``, nearly even, of at most ``most_bytes`` each."""
    extent = array.shape[axis]
    line = array.nbytes // extent
    count = -(-array.nbytes // most_bytes)
    step = -(-extent // count)
    grained = -(-step // _GRAIN) * _GRAIN
    step = grained if grained * line <= most_bytes else max(1, most_bytes // line)
    bounds = [slice(start, start + step) for start in range(0, extent, step)]
    return [np.ascontiguousarray(array[each] if axis == 0 else array[:, each]) for each in bounds]


def rows_of_parts(builder: Any, indices: Any, counts: Sequence[int], take: Callable[[int, Any], Any]) -> Any:
    """Rows of a table whose parts have ``counts`` rows; ``take(part, indices)`` gives those of one part.

    Of each part that is the nearest one, of which the part that has the row counts.
    """
    result, start = None, 0
    dtype, rank = str(indices.ty.dtype), len(indices.ty.shape)
    for part, rows in enumerate(counts):
        offset, last, zero = (relax.const(each, dtype) for each in (start, rows - 1, 0))
        local = relax.op.maximum(relax.op.minimum(relax.op.subtract(indices, offset), last), zero)
        taken = builder.emit(take(part, builder.emit(local)))
        if result is None:
            result = taken
        else:
            later = relax.op.expand_dims(relax.op.greater_equal(indices, offset), rank)
            result = builder.emit(relax.op.where(builder.emit(later), taken, result))
        start += rows
    return result
