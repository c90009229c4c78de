"""A fused function whose output takes the place of an operand."""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx

from assay.compile.schedules.blocks import FusedFunction
from assay.compile.schedules.ir import Expr

__all__ = ["mark_in_place", "write_in_place"]

# The attribute of a function that holds the position of the operand to write into.
_IN_PLACE = "assay.in_place"


def mark_in_place(function: Expr, operand: int) -> Expr:
    """A fused PrimFunc that is not scheduled yet, less its last parameter: the output is to be an operand."""
    shorter = tirx.PrimFunc(list(function.params)[:-1], function.body, attrs=function.attrs)
    return shorter.with_attr(_IN_PLACE, operand)


def write_in_place(fused: FusedFunction) -> FusedFunction:
    """The function with its operand for its output, where it is marked so."""
    position = (fused.function.attrs or {}).get(_IN_PLACE)
    if position is None:
        return fused
    operand, output = fused.params[int(position)], fused.blocks[-1].output
    blocks = tuple(
        replace(block, output=operand) if block.output.same_as(output) else block for block in fused.blocks
    )
    return replace(fused, blocks=blocks)
