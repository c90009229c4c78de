"""Expand to a known shape of data whose own sizes are not all known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from assay.compile.passes.constants import array_of

__all__ = ["convert_expand"]


def convert_expand(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX Expand where each size is 1 or the data's own is known; None for other cases."""
    data, wanted = inputs[0], array_of(inputs[1])
    if wanted is None or getattr(data.ty, "shape", None) is None:
        return None
    rank = max(len(wanted), data.ty.ndim)
    own = [tvm.tirx.IntImm("int64", 1)] * (rank - data.ty.ndim) + list(data.ty.shape)
    target = []
    for size, extent in zip([1] * (rank - len(wanted)) + wanted.tolist(), own, strict=True):
        known = int(extent) if isinstance(extent, tvm.tirx.IntImm) else None
        if size == 1 or known == size:
            target.append(extent)
        elif known == 1:
            target.append(tvm.tirx.IntImm("int64", size))
        else:
            return None
    return relax.op.broadcast_to(data, relax.ShapeExpr(target))
