"""Put the statements of TVM's shape functions in order: TVM's own order follows addresses in memory."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx

from assay.compile.schedules.blocks import loads_of
from assay.compile.schedules.ir import as_int

__all__ = ["order_shape_functions"]


@tvm.transform.module_pass(opt_level=0, name="OrderShapeFunctions")  # type: ignore[untyped-decorator]
def order_shape_functions(module: Any, _context: Any) -> Any:
    """A pass: shape functions compute sizes in the order of their slots, so that builds repeat."""
    for variable, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc) or "tirx.is_host_func" not in (function.attrs or {}):
            continue
        stores = list(function.body.seq) if isinstance(function.body, tirx.SeqStmt) else []
        if _commute(stores):
            body = tirx.SeqStmt(sorted(stores, key=_slot))
            module.update_func(variable, function.with_body(body))
    return module


def _slot(store: Any) -> int:
    slot = as_int(store.indices[0])
    assert slot is not None
    return slot


def _commute(statements: list[Any]) -> bool:
    """Whether all are stores to different slots of one buffer, and none reads what another writes."""
    if not statements or not all(
        isinstance(s, tirx.BufferStore) and len(s.indices) == 1 and as_int(s.indices[0]) is not None
        for s in statements
    ):
        return False
    written = {_slot(store) for store in statements}
    reads = [access for store in statements for access in loads_of(store.value)]
    return (
        len(written) == len(statements)
        and all(store.buffer.same_as(statements[0].buffer) for store in statements)
        and all(len(read.indices) == 1 and as_int(read.indices[0]) not in written | {None} for read in reads)
    )
