"""TopK as a kernel of ours: TVM's sorts in a library that artifacts do not carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from assay.compile.passes.constants import array_of
from assay.compile.schedules.ir import as_int
from assay.compile.schedules.top_k import top_k_function

__all__ = ["convert_top_k"]

# The list of the best is searched element by element.
_MOST = 1024
_DTYPES = ("float32", "float64", "int32", "int64")


def convert_top_k(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX TopK along an axis of known size: values and positions. Raises ValueError for what is missing."""
    data = inputs[0]
    count = attributes.get("k") if opset < 10 else array_of(inputs[1])
    if count is None:
        raise ValueError("k has to be a constant")
    k = int(count if isinstance(count, int) else count.item())
    dtype = str(data.ty.dtype)
    if dtype not in _DTYPES:
        raise ValueError(f"elements of {dtype} are not supported")
    shape, rank = list(data.ty.shape), data.ty.ndim
    axis = int(attributes.get("axis", -1)) % rank
    size = as_int(shape[axis])
    if size is None or not 1 <= k <= min(size, _MOST):
        raise ValueError(f"k is {k}; supported is 1 to {_MOST}, at most the known size of the axis")
    order = [a for a in range(rank) if a != axis] + [axis]
    moved = data if axis == rank - 1 else builder.emit(relax.op.permute_dims(data, order))
    wide = list(moved.ty.shape)
    kernel = top_k_function(wide, dtype, k, largest=bool(int(attributes.get("largest", 1))))
    kept = [*wide[:-1], k]
    types = [relax.TensorType(kept, dtype), relax.TensorType(kept, "int64")]
    results = builder.emit(relax.call_tir(builder.add_func(kernel, "top_k"), [moved], out_ty=types))
    parts = [builder.emit(relax.TupleGetItem(results, i)) for i in range(2)]
    if axis != rank - 1:
        back = [order.index(a) for a in range(rank)]
        parts = [builder.emit(relax.op.permute_dims(part, back)) for part in parts]
    return relax.Tuple(parts)
