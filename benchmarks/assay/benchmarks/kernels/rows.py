"""What a language model does to rows between its products: RMSNorm, softmax, SiLU, rotary embedding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from assay.benchmarks.kernels.spec import KernelSpec
from assay.models.spec import Array

if TYPE_CHECKING:
    import onnx

__all__ = ["KERNELS"]

# 128 tokens of a language model of about a billion parameters.
_TOKENS, _HIDDEN, _WIDE = 128, 2048, 5632
_HEADS, _DEPTH = 32, 64
_KEYS = 1024
_EPSILON = 1e-5


def _rms_norm_nodes() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    import numpy as np
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "epsilon"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["root"]),
        helper.make_node("Reciprocal", ["root"], ["inverse"]),
        helper.make_node("Mul", ["x", "inverse"], ["normal"]),
        helper.make_node("Mul", ["normal", "weight"], ["y"]),
    ]
    axes = numpy_helper.from_array(np.array([-1], np.int64), "axes")
    epsilon = numpy_helper.from_array(np.array(_EPSILON, np.float32), "epsilon")
    return nodes, [axes, epsilon]


def _rms_norm_numpy(x: Array, weight: Array) -> Array:
    import numpy as np

    root = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(_EPSILON))
    normal: Array = x / root * weight
    return normal


def _rms_norm_torch(x: Any, weight: Any) -> Any:
    from torch.nn import functional

    return functional.rms_norm(x, (_HIDDEN,), weight, _EPSILON)


def _softmax_nodes() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    from onnx import helper

    return [helper.make_node("Softmax", ["x"], ["y"], axis=-1)], []


def _softmax_numpy(x: Array) -> Array:
    import numpy as np

    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _softmax_torch(x: Any) -> Any:
    return x.softmax(-1)


def _silu_nodes() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    from onnx import helper

    return [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])], []


def _silu_numpy(x: Array) -> Array:
    import numpy as np

    scaled: Array = x / (np.float32(1) + np.exp(-x))
    return scaled


def _silu_torch(x: Any) -> Any:
    from torch.nn import functional

    return functional.silu(x)


def _rotary_nodes() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    from onnx import helper

    nodes = [
        helper.make_node("Split", ["x"], ["first", "second"], axis=-1, num_outputs=2),
        helper.make_node("Mul", ["first", "cosine"], ["a"]),
        helper.make_node("Mul", ["second", "sine"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["left"]),
        helper.make_node("Mul", ["second", "cosine"], ["c"]),
        helper.make_node("Mul", ["first", "sine"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["y"], axis=-1),
    ]
    return nodes, []


def _rotary_numpy(x: Array, cosine: Array, sine: Array) -> Array:
    import numpy as np

    first, second = np.split(x, 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    joined: Array = np.concatenate(turned, axis=-1)
    return joined


def _rotary_torch(x: Any, cosine: Any, sine: Any) -> Any:
    import torch

    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


_ANGLES = (_TOKENS, 1, _DEPTH // 2)

KERNELS: tuple[KernelSpec, ...] = (
    KernelSpec(
        name="rms-norm",
        family="rows",
        inputs={"x": (_TOKENS, _HIDDEN), "weight": (_HIDDEN,)},
        output=(_TOKENS, _HIDDEN),
        nodes=_rms_norm_nodes,
        numpy=_rms_norm_numpy,
        torch=_rms_norm_torch,
        operations=4 * _TOKENS * _HIDDEN,
    ),
    KernelSpec(
        name="softmax",
        family="rows",
        inputs={"x": (_HEADS, 16, _KEYS)},
        output=(_HEADS, 16, _KEYS),
        nodes=_softmax_nodes,
        numpy=_softmax_numpy,
        torch=_softmax_torch,
        operations=5 * _HEADS * 16 * _KEYS,
    ),
    KernelSpec(
        name="silu",
        family="rows",
        inputs={"x": (_TOKENS, _WIDE)},
        output=(_TOKENS, _WIDE),
        nodes=_silu_nodes,
        numpy=_silu_numpy,
        torch=_silu_torch,
        operations=4 * _TOKENS * _WIDE,
    ),
    KernelSpec(
        name="rotary-embedding",
        family="rows",
        inputs={"x": (_TOKENS, _HEADS, _DEPTH), "cosine": _ANGLES, "sine": _ANGLES},
        output=(_TOKENS, _HEADS, _DEPTH),
        nodes=_rotary_nodes,
        numpy=_rotary_numpy,
        torch=_rotary_torch,
        operations=6 * math.prod((_TOKENS, _HEADS, _DEPTH // 2)),
    ),
)
