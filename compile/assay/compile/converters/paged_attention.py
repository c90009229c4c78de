"""The operators of our own domain that a decoder over a paged cache has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from assay.compile.passes.paged_cache import PREFIX
from assay.compile.schedules.paged_problem import PagedProblem, Place

__all__ = ["convert_drop_batch", "convert_paged_attention", "convert_take_rows"]


def convert_paged_attention(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """PagedAttention, whose inputs are those of ``PagedBuffers``: a call that a pass makes a kernel's."""
    qkv, cosines, sines, position_ids, past_lengths, offsets, table, cache, scales = inputs
    _, layers, _, kv_heads, page = list(cache.ty.shape)
    heads, columns = int(attributes["heads"]), int(qkv.ty.shape[2])
    head_dim = columns // (heads + 2 * int(kv_heads))
    problem = PagedProblem(
        heads=heads,
        kv_heads=int(kv_heads),
        head_dim=head_dim,
        rotary_dim=0 if cosines is None else 2 * int(cosines.ty.shape[1]),
        positions=0 if cosines is None else int(cosines.ty.shape[0]),
        scale=float(attributes["scale"]),
        softcap=float(attributes["softcap"]),
        layers=int(layers),
        cache_dtype=str(cache.ty.dtype),  # type: ignore[arg-type]
    )
    if columns != problem.columns or int(page) != 32 * head_dim:
        raise ValueError(f"{columns} columns of q, k and v do not fit {heads} heads and the cache")
    place = Place(layer=int(attributes["layer"]), window=int(attributes["window"]) or None)
    given = (qkv, cosines, sines, position_ids, past_lengths, offsets, table, cache, scales)
    result = relax.TensorType([1, qkv.ty.shape[1], heads * head_dim], "float32")
    call = relax.call_dps_packed(
        PREFIX + problem.to_text(place), [item for item in given if item is not None], out_ty=result
    )
    return builder.emit(call)


def convert_take_rows(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """TakeRows: ``[1, rows, ...]`` of ``[1, tokens, ...]``; an index out of range takes the nearest row."""
    return relax.op.take(inputs[0], inputs[1], 1, mode="clip")


def convert_drop_batch(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """DropBatch: ``[1, ...]`` as ``[...]``."""
    return relax.op.reshape(inputs[0], list(inputs[0].ty.shape)[1:])
