"""Weights larger than a device's buffers, in parts: products by columns, tables by rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of

__all__ = ["split_large_weights"]

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
            return call if parts is None else self._taken(parts, call)
        return call

    def _taken(self, parts: list[Any], call: Any) -> Any:
        """Rows of a table in parts: of each the nearest one, of which the part that has the row counts."""
        indices, result, start = call.args[1], None, 0
        dtype, rank = str(indices.ty.dtype), len(indices.ty.shape)
        for part in parts:
            rows = int(part.ty.shape[0])
            offset, last, zero = (relax.const(each, dtype) for each in (start, rows - 1, 0))
            local = relax.op.maximum(relax.op.minimum(relax.op.subtract(indices, offset), last), zero)
            taken = self.builder_.emit(relax.op.take(part, self.builder_.emit(local), 0, call.attrs.mode))
            if result is None:
                result = taken
            else:
                later = relax.op.expand_dims(relax.op.greater_equal(indices, offset), rank)
                result = self.builder_.emit(relax.op.where(self.builder_.emit(later), taken, result))
            start += rows
        return result

    def _split(self, weight: Any, axis: int) -> list[Any] | None:
        """Parts of a matrix along ``axis``; None where it is small enough, or none."""
        array = array_of(weight)
        if array is None or array.ndim != 2 or array.nbytes <= self.most_bytes:
            return None
        if (weight, axis) not in self.parts:
            self.parts[weight, axis] = [relax.const(each) for each in _slices(array, axis, self.most_bytes)]
        return self.parts[weight, axis]


def _slices(array: npt.NDArray[Any], axis: int, most_bytes: int) -> list[npt.NDArray[Any]]:
    """Contiguous copies of parts, nearly even."""
    extent = array.shape[axis]
    line = array.nbytes // extent
    count = -(-array.nbytes // most_bytes)
    step = -(-extent // count)
    grained = -(-step // _GRAIN) * _GRAIN
    step = grained if grained * line <= most_bytes else max(1, most_bytes // line)
    bounds = [slice(start, start + step) for start in range(0, extent, step)]
    return [np.ascontiguousarray(array[each] if axis == 0 else array[:, each]) for each in bounds]
