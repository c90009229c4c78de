"""The products of attention: all queries at once (4-D), and one query against a cache of keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from assay.benchmarks.kernels.spec import KernelSpec
from assay.models.spec import Array

if TYPE_CHECKING:
    import onnx

__all__ = ["KERNELS"]

_BATCH, _HEADS, _ROWS, _DEPTH = 4, 8, 64, 64
# A language model of about a billion parameters, in the middle of a text.
_CACHE_HEADS, _CACHED = 32, 1024


def _score_nodes(depth: int, axes: Sequence[int]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    import numpy as np
    from onnx import helper, numpy_helper

    scale = numpy_helper.from_array(np.array(1 / math.sqrt(depth), np.float32), "scale")
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], perm=list(axes)),
        helper.make_node("MatMul", ["q", "t"], ["p"]),
        helper.make_node("Mul", ["p", "scale"], ["y"]),
    ]
    return nodes, [scale]


def _scores_4d() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    return _score_nodes(_DEPTH, (0, 1, 3, 2))


def _scores_cached() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    return _score_nodes(_DEPTH, (0, 2, 1))


def _sum_nodes() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    from onnx import helper

    return [helper.make_node("MatMul", ["p", "v"], ["y"])], []


def _scores_numpy(q: Array, k: Array) -> Array:
    import numpy as np

    scores: Array = np.matmul(q, k.swapaxes(-1, -2)) * np.float32(1 / math.sqrt(_DEPTH))
    return scores


def _scores_torch(q: Any, k: Any) -> Any:
    return (q @ k.transpose(-1, -2)) * (1 / math.sqrt(_DEPTH))


def _sum_numpy(p: Array, v: Array) -> Array:
    import numpy as np

    total: Array = np.matmul(p, v)
    return total


def _sum_torch(p: Any, v: Any) -> Any:
    return p @ v


_WHOLE = f"{_BATCH}x{_HEADS}x{_ROWS}x{_DEPTH}"
_SQUARE = (_BATCH, _HEADS, _ROWS, _DEPTH)

KERNELS: tuple[KernelSpec, ...] = (
    KernelSpec(
        name=f"attention-qk-{_WHOLE}",
        family="attention",
        inputs={"q": _SQUARE, "k": _SQUARE},
        output=(_BATCH, _HEADS, _ROWS, _ROWS),
        nodes=_scores_4d,
        numpy=_scores_numpy,
        torch=_scores_torch,
        operations=(2 * _DEPTH + 1) * _BATCH * _HEADS * _ROWS * _ROWS,
    ),
    KernelSpec(
        name=f"attention-pv-{_WHOLE}",
        family="attention",
        inputs={"p": (_BATCH, _HEADS, _ROWS, _ROWS), "v": _SQUARE},
        output=_SQUARE,
        nodes=_sum_nodes,
        numpy=_sum_numpy,
        torch=_sum_torch,
        operations=2 * _ROWS * _BATCH * _HEADS * _ROWS * _DEPTH,
    ),
    KernelSpec(
        name="attention-scores",
        family="attention",
        inputs={"q": (_CACHE_HEADS, 1, _DEPTH), "k": (_CACHE_HEADS, _CACHED, _DEPTH)},
        output=(_CACHE_HEADS, 1, _CACHED),
        nodes=_scores_cached,
        numpy=_scores_numpy,
        torch=_scores_torch,
        operations=(2 * _DEPTH + 1) * _CACHE_HEADS * _CACHED,
    ),
    KernelSpec(
        name="weighted-row-sum",
        family="attention",
        inputs={"p": (_CACHE_HEADS, 1, _CACHED), "v": (_CACHE_HEADS, _CACHED, _DEPTH)},
        output=(_CACHE_HEADS, 1, _DEPTH),
        nodes=_sum_nodes,
        numpy=_sum_numpy,
        torch=_sum_torch,
        operations=2 * _CACHED * _CACHE_HEADS * _DEPTH,
    ),
)
