"""What a call of a product with block-quantized weights computes, between the importer and its kernels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from tvm import ir, relax

__all__ = ["GATHER", "MATMUL", "BlockCall", "block_call"]

# What the importer calls; a BlockCall follows as text.
MATMUL = "assay.block_matmul:"
GATHER = "assay.block_gather:"

_INT8_ACTIVATIONS = 4


@dataclass(frozen=True, kw_only=True)
class BlockCall:
    """A matrix ``[rows, columns]`` of codes of ``bits`` bits, with a scale for every ``block`` columns.

    ``rows`` are the outputs N of a product, or the entries of a table; ``columns`` are K. ``accuracy``: ONNX
    Runtime's accuracy_level of a product, by which activations may be quantized to int8 at 4. ``dtype``:
    float16 or bfloat16 where the matrix is of such numbers, which have neither scales nor zero points, and
    ``block`` says only how many are added up together; empty for codes. Only devices know those.
    """

    bits: int
    block: int
    rows: int
    columns: int
    accuracy: int = 0
    has_zero_points: bool = False
    has_bias: bool = False
    dtype: str = ""

    @property
    def integer(self) -> bool:
        """Whether activations are quantized, too."""
        return self.accuracy == _INT8_ACTIVATIONS

    @property
    def weight_operands(self) -> int:
        """How many operands the matrix is: the numbers, or codes, scales and perhaps zero points."""
        return 1 if self.dtype else 2 + self.has_zero_points

    def with_rows(self, rows: int) -> BlockCall:
        """The call with other rows."""
        return replace(self, rows=rows)

    def to_text(self) -> str:
        """A text that from_text reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_text(text: str) -> BlockCall:
        """The call that gave this text."""
        return BlockCall(**json.loads(text))


def block_call(expr: Any, prefix: str) -> tuple[BlockCall, list[Any]] | None:
    """The call behind an expression and its operands, where it is one that starts with ``prefix``."""
    if not isinstance(expr, ir.Call) or not isinstance(expr.op, ir.Op):
        return None
    if expr.op.name != "relax.call_dps_packed" or not isinstance(expr.args[0], relax.ExternFunc):
        return None
    name = str(expr.args[0].global_symbol)
    if not name.startswith(prefix):
        return None
    return BlockCall.from_text(name.removeprefix(prefix)), list(expr.args[1].fields)
