"""MatMulNBits of ONNX Runtime: a product with weights that are quantized in blocks of a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from assay.compile.passes.constants import array_of
from assay.compile.schedules.block_problem import MATMUL, BlockCall

__all__ = ["convert_matmul_nbits", "unpacked_zero_points"]

_BITS = (4, 8)


def unpacked_zero_points(
    values: npt.NDArray[Any], bits: int, rows: int, blocks: int
) -> npt.NDArray[np.float32]:
    """float32 ``[rows, blocks]`` of zero points: floats, or integers in whole bytes for each row."""
    if values.dtype.kind == "f":
        return values.astype(np.float32).reshape(rows, blocks)
    if values.dtype != np.uint8:
        raise ValueError(f"zero points of {values.dtype} are not supported")
    if bits == 8:
        return values.reshape(rows, blocks).astype(np.float32)
    pairs = values.reshape(rows, -1)
    split = np.stack([pairs & 15, pairs >> 4], -1).reshape(rows, -1)
    return split[:, :blocks].astype(np.float32)


def _constant(inputs: Any, position: int, name: str) -> npt.NDArray[Any] | None:
    if position >= len(inputs) or inputs[position] is None:
        return None
    array = array_of(inputs[position])
    if array is None:
        raise ValueError(f"the input {name} has to be a constant")
    return array


def convert_matmul_nbits(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """MatMulNBits with float32 activations and 4 or 8 bits; ValueError names what is missing.

    What arises is ``call_dps_packed("assay.block_matmul:" + BlockCall, [A, codes, scales, zeros, bias])``
    (the last two where there are any): float32 ``[..., N]`` of A ``[..., K]``, codes uint8
    ``[N, blocks, block * bits / 8]``, scales and zero points float32 ``[N, blocks]``, bias float32 ``[N]``.
    ``passes/block_products.py`` joins the calls of one A along N (a concatenation of their results is the
    joint result, without a copy) and makes them kernels: ``block_quantize`` once for each A and block size,
    to int8 ``[..., row_bytes]``, and ``block_matmul`` for each product, whose epilogue is what follows
    elementwise. With another accuracy_level than 4, the weights are dequantized at build time.
    """
    x = inputs[0]
    bits, block = int(attributes.get("bits", 4)), int(attributes["block_size"])
    rows, columns = int(attributes["N"]), int(attributes["K"])
    codes, scales = _constant(inputs, 1, "B"), _constant(inputs, 2, "scales")
    zeros, bias = _constant(inputs, 3, "zero_points"), _constant(inputs, 5, "bias")
    if _constant(inputs, 4, "g_idx") is not None:
        raise ValueError("the input g_idx is not supported")
    if bits not in _BITS or block < 16 or block & (block - 1):
        raise ValueError(f"{bits} bits in blocks of {block} are not supported")
    if str(x.ty.dtype) != "float32" or x.ty.shape is None or x.ty.ndim < 2:
        raise ValueError("only float32 activations of two and more dimensions are supported")
    assert codes is not None
    assert scales is not None
    blocks = -(-columns // block)
    if codes.dtype != np.uint8 or codes.size != rows * blocks * block * bits // 8:
        raise ValueError(f"B does not hold {rows} x {columns} codes of {bits} bits in blocks of {block}")
    if scales.dtype.kind != "f" or scales.size != rows * blocks:
        raise ValueError(f"scales does not hold {rows} x {blocks} numbers")
    call = BlockCall(
        bits=bits, block=block, rows=rows, columns=columns, accuracy=int(attributes.get("accuracy_level", 0)),
        has_zero_points=zeros is not None, has_bias=bias is not None,
    )  # fmt: skip
    operands = [codes.reshape(rows, blocks, -1), scales.astype(np.float32).reshape(rows, blocks)]
    if zeros is not None:
        operands.append(unpacked_zero_points(zeros, bits, rows, blocks))
    if bias is not None:
        operands.append(bias.astype(np.float32).reshape(rows))
    shape = [*list(x.ty.shape)[:-1], rows]
    return builder.emit(
        relax.call_dps_packed(
            MATMUL + call.to_text(),
            [x, *(relax.const(array) for array in operands)],
            out_ty=relax.TensorType(shape, "float32"),
        )
    )
