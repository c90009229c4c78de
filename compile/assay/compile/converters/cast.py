"""Cast that leaves weights of 16 bits as they are stored, and widens computed ones on every CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax, te

from assay.compile.passes.constants import array_of, is_half
from assay.compile.schedules.half import widened_bits

__all__ = ["WIDENED", "convert_cast"]

WIDENED = "assay.widened"
"""An attribute of the functions that widen computed numbers: the dtype that these have."""

_FLOAT = 1  # onnx.TensorProto.FLOAT
_HALVES = ("float16", "bfloat16")


def convert_cast(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX Cast from float16 or bfloat16 to float32; None for the rest.

    The cast of a constant stays in the graph: ``passes/constants.py`` decides whether it is evaluated.
    """
    x = inputs[0]
    if int(attributes.get("to", 0)) != _FLOAT or not isinstance(getattr(x, "ty", None), relax.TensorType):
        return None
    dtype = str(x.ty.dtype)
    if dtype not in _HALVES or x.ty.shape is None:
        return None
    if array_of(x) is not None:
        return builder.emit(relax.op.astype(x, "float32")) if is_half(array_of(x)) else None
    made = builder.call_te(_widen, x, dtype, primfunc_name_hint="widen", primfunc_attrs={WIDENED: dtype})
    return builder.emit(made)


def _widen(x: Any, dtype: str) -> Any:
    return te.compute(x.shape, lambda *i: widened_bits(x[i], dtype), name="widen")
