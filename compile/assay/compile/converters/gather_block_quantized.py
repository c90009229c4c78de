"""GatherBlockQuantized of ONNX Runtime: rows of a table whose numbers are quantized in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from assay.compile.converters.matmul_nbits import unpacked_zero_points
from assay.compile.passes.constants import array_of
from assay.compile.schedules.block_problem import GATHER, BlockCall

__all__ = ["convert_gather_block_quantized"]


def _constant(builder: Any, expr: Any) -> npt.NDArray[Any] | None:
    """The array behind a constant, or behind a reshape of one."""
    value = builder.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
    if isinstance(value, tvm.ir.Call) and getattr(value.op, "name", "") == "relax.reshape":
        array, shape = array_of(value.args[0]), value.ty.shape
        if array is None or not all(isinstance(s, tvm.tirx.IntImm) for s in shape):
            return None
        return array.reshape([int(s) for s in shape])
    return array_of(value)


def convert_gather_block_quantized(
    builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int
) -> Any:
    """Rows of a constant uint8 table of 4 or 8 bits, quantized along its last axis; ValueError for the rest.

    What arises is ``call_dps_packed("assay.block_gather:" + BlockCall, [indices, codes, scales, zeros])``
    with operands as in ``convert_matmul_nbits``. An index outside of the table reads the nearest row.
    """
    bits, block = int(attributes.get("bits", 4)), int(attributes.get("block_size", 128))
    codes, scales = _constant(builder, inputs[0]), _constant(builder, inputs[2])
    zeros = _constant(builder, inputs[3]) if len(inputs) > 3 and inputs[3] is not None else None
    if codes is None or scales is None or (zeros is None and len(inputs) > 3 and inputs[3] is not None):
        raise ValueError("the table, its scales and its zero points have to be constants")
    if codes.dtype != np.uint8 or codes.ndim != 2 or bits not in (4, 8) or block < 16 or block & (block - 1):
        raise ValueError(f"a table of {codes.dtype} with {bits} bits in blocks of {block} is not supported")
    if int(attributes.get("gather_axis", 0)) % 2 or int(attributes.get("quantize_axis", 1)) % 2 != 1:
        raise ValueError("only rows of a table that is quantized along its rows can be taken")
    if scales.dtype != np.float32:
        raise ValueError(f"scales of {scales.dtype} are not supported")
    rows, columns = codes.shape[0], codes.shape[1] * 8 // bits
    blocks = -(-columns // block)
    if scales.shape != (rows, blocks):
        raise ValueError(f"the scales are {scales.shape}, not {(rows, blocks)}")
    call = BlockCall(
        bits=bits, block=block, rows=rows, columns=columns, has_zero_points=zeros is not None
    )  # fmt: skip
    padded = np.zeros((rows, blocks * block * bits // 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    operands = [padded.reshape(rows, blocks, -1), scales]
    if zeros is not None:
        operands.append(unpacked_zero_points(zeros, bits, rows, blocks))
    indices = _inside(builder, inputs[1], rows)
    shape = [*list(indices.ty.shape), columns]
    return builder.emit(
        relax.call_dps_packed(
            GATHER + call.to_text(),
            [indices, *(relax.const(array) for array in operands)],
            out_ty=relax.TensorType(shape, "float32"),
        )
    )


def _inside(builder: Any, indices: Any, rows: int) -> Any:
    """``indices`` counted from the first row, within the table."""
    known = array_of(indices)
    if known is not None:
        return relax.const(np.where(known < 0, known + rows, known).clip(0, rows - 1))
    dtype = str(indices.ty.dtype)
    zero, count, last = (relax.const(value, dtype) for value in (0, rows, rows - 1))
    negative = builder.emit(relax.op.less(indices, zero))
    wrapped = builder.emit(relax.op.add(indices, count))
    chosen = builder.emit(relax.op.where(negative, wrapped, indices))
    return builder.emit(relax.op.minimum(builder.emit(relax.op.maximum(chosen, zero)), last))
