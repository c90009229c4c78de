"""Weights of float16 and bfloat16 that products and tables of a device read as they are stored.

What the scheme stores in 16 bits stands behind a cast to float32. Here the cast goes: products and gathers of
rows become the calls that those of block-quantized weights are, of numbers instead of codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.converters.cast import WIDENED
from assay.compile.device_schedules.quantized_weights import PANEL
from assay.compile.passes.constants import (
    array_of,
    half_weights_of_products,
    moved_array,
    stored_array,
)
from assay.compile.passes.graph import Graph, is_call, static_shape
from assay.compile.passes.large_weights import rows_of_parts, slices
from assay.compile.schedules.block_problem import GATHER, MATMUL, BlockCall

__all__ = ["keep_half_weights"]

# Numbers that are added up before they join the sum of a product.
_BLOCK = 32


def keep_half_weights(module: Any, largest_buffer: int | None = None) -> Any:
    """``module`` whose products and tables with weights of 16 bits are calls that convert_for_devices knows.

    ``largest_buffer``: bytes that a weight may have once a kernel widened it; larger ones come in parts. None
    for any number. Those that other operators read stay. Casts of what is computed become plain casts.
    """
    converter = _Converter(module, largest_buffer)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    return relax.transform.DeadCodeElimination()(converter.builder_.get())


@mutator
class _Converter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, largest_buffer: int | None) -> None:
        super().__init__(module)
        self.module = module
        self.graph = Graph(module["main"])
        self.weights = half_weights_of_products(self.graph)
        self.largest_buffer = largest_buffer

    def visit_call_(self, call: Any) -> Any:
        given = call
        call = super().visit_call_(call)
        if is_call(given, "matmul") and given.args[1] in self.weights:
            return self._product(given, call)
        if is_call(given, "call_tir") and WIDENED in (self.module[given.args[0]].attrs or {}):
            return self._rows(given, call)
        return call

    def _product(self, given: Any, call: Any) -> Any:
        """A product; ``given``: as it is in the module that is converted."""
        weight, shape = self._weight(given.args[1]), static_shape(given.args[0])
        if shape is None or len(shape) < 2 or str(given.ty.dtype) != "float32":
            return call
        leading = list(given.ty.shape)[:-1]
        products = [
            self._called(MATMUL, part, call.args[0], [*leading, len(part)]) for part in self._parts(weight.T)
        ]
        if len(products) == 1:
            return products[0]
        return relax.op.concat([self.builder_.emit(product) for product in products], -1)

    def _weight(self, expr: Any) -> npt.NDArray[Any]:
        """The numbers of 16 bits that one of ``weights`` widens, as it moves them."""
        value = self.graph.value(expr)
        array = stored_array(value)
        if array is None:
            array = moved_array(value, self._weight(value.args[0]))
        assert array is not None
        return array

    def _rows(self, given: Any, call: Any) -> Any:
        """What widens computed numbers: rows of a table, or others."""
        (source,) = given.args[1].fields
        take = self.graph.value(source)
        table = array_of(self.graph.value(take.args[0])) if is_call(take, "take") else None
        if table is None or not _takes_rows(take, table):
            return relax.op.astype(call.args[1].fields[0], "float32")
        indices = self.visit_expr(take.args[1])
        parts, shape = self._parts(table), list(given.ty_args[0].shape)
        if len(parts) == 1:
            return self._called(GATHER, parts[0], indices, shape)
        counts = [len(part) for part in parts]
        return rows_of_parts(
            self.builder_, indices, counts, lambda i, at: self._called(GATHER, parts[i], at, shape)
        )

    def _parts(self, array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """A matrix [rows, columns] by rows. A table and a product that share one have the same parts."""
        if self.largest_buffer is None:
            return [np.ascontiguousarray(array)]
        # In float32 they take twice as much, with rows that fill the last panel.
        room = self.largest_buffer // 2 - (PANEL - 1) * array.shape[1] * array.itemsize
        return slices(array, 0, max(room, 1))

    @staticmethod
    def _called(kind: str, array: npt.NDArray[Any], operand: Any, shape: list[Any]) -> Any:
        """A call that reads ``array`` [rows, columns], whose bits travel as uint16."""
        rows, columns = array.shape
        call = BlockCall(bits=16, block=_BLOCK, rows=rows, columns=columns, dtype=array.dtype.name)
        weight = relax.const(array.view(np.uint16))
        return relax.call_dps_packed(
            kind + call.to_text(), [operand, weight], out_ty=relax.TensorType(shape, "float32")
        )


def _takes_rows(take: Any, table: npt.NDArray[Any]) -> bool:
    by_rows = take.attrs.axis is not None and int(take.attrs.axis) == 0 and str(take.attrs.mode) == "clip"
    return by_rows and table.ndim == 2 and isinstance(take.args[1].ty, relax.TensorType)
