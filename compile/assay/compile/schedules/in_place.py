"""A fused function whose output takes the place of an operand, or is a part of a wider array."""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx

from assay.compile.schedules.blocks import FusedFunction
from assay.compile.schedules.ir import Expr, i64, simplify

__all__ = ["mark_in_place", "mark_slice", "write_in_place"]

# The attribute of a function that holds the position of the operand to write into.
_IN_PLACE = "assay.in_place"
# The attribute of a function whose last parameter is wider than its output: where that starts in it.
_SLICE = "assay.slice"


def mark_in_place(function: Expr, operand: int) -> Expr:
    """A fused PrimFunc that is not scheduled yet, less its last parameter: the output is to be an operand."""
    shorter = tirx.PrimFunc(list(function.params)[:-1], function.body, attrs=function.attrs)
    return shorter.with_attr(_IN_PLACE, operand)


def mark_slice(function: Expr, width: int, start: int) -> Expr:
    """A fused PrimFunc that is not scheduled yet, whose output is to be a part of an array of that width.

    ``width`` and ``start`` are along the last axis.
    """
    *operands, output = function.params
    shape = [*list(output.ty.shape)[:-1], tirx.IntImm("int64", width)]
    whole = tirx.decl_buffer(shape, str(output.ty.dtype), name="whole")
    return tirx.PrimFunc([*operands, whole], function.body, attrs=function.attrs).with_attr(_SLICE, start)


def _write_slice(fused: FusedFunction, start: int) -> FusedFunction:
    *operands, whole = fused.params
    output = fused.blocks[-1].output
    stride, strides = i64(1), [i64(1)]
    for extent in reversed(list(whole.ty.shape)[1:]):
        stride = simplify(stride * i64(extent))
        strides.insert(0, stride)
    part = tirx.decl_buffer(
        list(output.ty.shape),
        str(output.ty.dtype),
        name="part",
        data=whole.data,
        strides=strides,
        elem_offset=i64(start),
    )
    blocks = tuple(
        replace(block, output=part) if block.output.same_as(output) else block for block in fused.blocks
    )
    declaration = tirx.DeclBuffer(part, data=whole.data)
    return replace(fused, params=(*operands, part), blocks=blocks, declarations=(declaration,))


def write_in_place(fused: FusedFunction) -> FusedFunction:
    """The function with an operand, or a part of its last parameter, for its output, where marked so."""
    attributes = fused.function.attrs or {}
    if _SLICE in attributes:
        return _write_slice(fused, int(attributes[_SLICE]))
    position = attributes.get(_IN_PLACE)
    if position is None:
        return fused
    operand, output = fused.params[int(position)], fused.blocks[-1].output
    blocks = tuple(
        replace(block, output=operand) if block.output.same_as(output) else block for block in fused.blocks
    )
    return replace(fused, blocks=blocks)
