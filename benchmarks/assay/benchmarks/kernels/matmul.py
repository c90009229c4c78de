"""Matrix products of two operands that both arrive at run time: square, batched, vector, and tall."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from assay.benchmarks.kernels.spec import KernelSpec, Shape
from assay.models.spec import Array, Tolerance

if TYPE_CHECKING:
    import onnx

__all__ = ["KERNELS"]


def _nodes() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    from onnx import helper

    return [helper.make_node("MatMul", ["a", "b"], ["y"])], []


def _numpy(a: Array, b: Array) -> Array:
    import numpy as np

    product: Array = np.matmul(a, b)
    return product


def _torch(a: Any, b: Any) -> Any:
    return a @ b


def _product(name: str, a: Shape, b: Shape, output: Shape) -> KernelSpec:
    depth = a[-1]
    return KernelSpec(
        name=name,
        family="matmul",
        inputs={"a": a, "b": b},
        output=output,
        nodes=_nodes,
        numpy=_numpy,
        torch=_torch,
        operations=2 * math.prod(output) * depth,
        # Rounding of a sum of K products of numbers around 1.
        tolerance=Tolerance(absolute=1e-5 * math.sqrt(depth), relative=1e-3),
    )


def _square(size: int) -> KernelSpec:
    return _product(f"matmul-{size}", (size, size), (size, size), (size, size))


def _batched(batch: int, size: int) -> KernelSpec:
    shape = (batch, size, size)
    return _product(f"matmul-{batch}x{size}x{size}", shape, shape, shape)


# The projections of a language model of about a billion parameters.
_HIDDEN, _WIDE, _TOKENS = 2048, 5632, 128

KERNELS: tuple[KernelSpec, ...] = (
    *(_square(size) for size in (64, 128, 256, 512, 1024, 2048)),
    _batched(8, 64),
    _batched(16, 128),
    _batched(32, 64),
    _product("matrix-vector", (_WIDE, _HIDDEN), (_HIDDEN,), (_WIDE,)),
    _product("matrix-matrix", (_TOKENS, _HIDDEN), (_HIDDEN, _HIDDEN), (_TOKENS, _HIDDEN)),
)
