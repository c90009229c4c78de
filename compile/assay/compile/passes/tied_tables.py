"""Rows of a table that is the weight of a product too are read from its panels: the weight is stored once.

Language models often multiply by their table of embeddings in the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.passes.graph import Graph, is_call

__all__ = ["panel_rows", "share_tied_tables"]

# Tables below this size are not worth a look at every weight.
_SMALLEST_BYTES = 1 << 15
_DTYPES = {"float32": "float32", "float16": "uint16", "bfloat16": "uint16"}


def panel_rows(packed: Any, indices: Any, rows: int, dtype: str) -> Any:
    """TE: rows ``indices`` [...] of the table [rows, K] whose transpose is packed as panels [P, K, NR].

    Gives [..., K] of ``dtype``, whose bits the panels hold; an index out of range takes the nearest row.
    """
    width = packed.shape[2]

    def element(*index: Any) -> Any:
        row = tirx.max(tirx.min(indices[index[:-1]], rows - 1), 0)
        value = packed[tirx.floordiv(row, width), index[-1], tirx.floormod(row, width)]
        return value if str(packed.dtype) == dtype else tirx.reinterpret(dtype, value)

    return te.compute((*indices.shape, packed.shape[1]), element, name="panel_rows")


def _is_packed(table: npt.NDArray[Any], packed: npt.NDArray[Any]) -> bool:
    """Whether ``packed`` holds the transpose of ``table`` in panels."""
    rows, columns = table.shape
    panels, depth, width = packed.shape
    if depth != columns or panels != -(-rows // width) or packed.dtype.name != _DTYPES[table.dtype.name]:
        return False
    return all(
        np.array_equal(packed[i // width, :, i % width], table[i].view(packed.dtype))
        for i in (0, rows // 2, rows - 1)
    ) and np.array_equal(packed.transpose(0, 2, 1).reshape(-1, columns)[:rows], table.view(packed.dtype))


def _tables(module: Any) -> dict[Any, tuple[Any, npt.NDArray[Any]]]:
    """By the variable of a gather of rows: the panels that hold its table, and the table."""
    graph = Graph(module["main"])
    products: list[tuple[Any, npt.NDArray[Any]]] = []
    gathers: dict[Any, npt.NDArray[Any]] = {}
    for var, value in graph.values.items():
        if is_call(value, "call_tir"):
            arrays = [(each, array_of(each)) for each in value.args[1].fields]
            products += [(each, array) for each, array in arrays if array is not None and array.ndim == 3]
        elif is_call(value, "take"):
            table = array_of(value.args[0])
            if table is not None and _is_table(table, value):
                gathers[var] = table
    found = {}
    for var, table in gathers.items():
        for panels, array in products:
            if _is_packed(table, array):
                found[var] = (panels, table)
                break
    return found


def _is_table(table: npt.NDArray[Any], take: Any) -> bool:
    by_rows = take.attrs.axis is not None and int(take.attrs.axis) == 0 and str(take.attrs.mode) == "clip"
    return by_rows and table.ndim == 2 and table.nbytes >= _SMALLEST_BYTES and table.dtype.name in _DTYPES


@mutator
class _Sharer(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, tables: dict[Any, tuple[Any, npt.NDArray[Any]]]) -> None:
        super().__init__(module)
        self.tables = tables

    def visit_var_binding_(self, binding: Any) -> None:
        known = self.tables.get(binding.var)
        if known is None:
            super().visit_var_binding_(binding)
            return
        panels, table = known
        call = self.builder_.call_te(
            lambda packed, indices: panel_rows(packed, indices, len(table), table.dtype.name),
            panels,
            self.visit_expr(binding.value.args[1]),
            primfunc_name_hint="panel_rows",
        )
        emit = self.builder_.emit if isinstance(binding.var, relax.DataflowVar) else self.builder_.emit_output
        self.set_var_remap(binding.var, emit(call, binding.var.name))


def share_tied_tables(module: Any) -> Any:
    """``module`` behind the packing of weights, without tables that panels hold."""
    tables = _tables(module)
    if not tables:
        return module
    sharer = _Sharer(module, tables)
    sharer.builder_.update_func(module.get_global_var("main"), sharer.visit_expr(module["main"]))
    return sharer.builder_.get()
