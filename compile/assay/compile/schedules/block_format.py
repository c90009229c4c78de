"""How block-quantized weights lie in memory: panels of columns, each read once from first to last byte.

A weight is ``scale * (code - zero point)``; ``block`` consecutive K of a column share a scale and a zero
point. A panel holds ``vectors`` times ``lanes`` columns. For each block of K it has the codes, then the
scales, then the offsets. Codes lie in quads: four consecutive K of a column are neighbours, as the integer
products of a CPU take them. With 4 bits, a byte holds two quads: the low half K, the high half K + 4.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SPAN", "ActivationFormat", "BlockFormat", "BlockWeights", "Offset", "pack_blocks", "plan_format"]

Array = npt.NDArray[Any]

# Half a unit in the last place of float32: -scale * zero point rounds to a minimum that is this near.
_ROUNDING = 2.0**-23
# K whose products with codes up to 15 may be added before they are widened: 8 quads in one 16-bit sum are
# 8 * 2 * 15 * 127, which is 30480.
SPAN = 32
# Columns of a panel, about.
_PANEL_COLUMNS = 32


class Offset(StrEnum):
    """What a block has beside its scale."""

    CONSTANT = "constant"  # one zero point for the whole matrix
    ZERO_POINT = "zero_point"  # a whole number, the zero point
    MINIMUM = "minimum"  # a real number, -scale * zero point


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """A matrix ``[N, K]`` of codes, with scales and zero points ``[N, ceil(K / block)]``.

    Without zero points, they are ``2^(bits-1)``. ``codes``: uint8, one a byte, below ``2^bits``. The others:
    float32.
    """

    bits: int
    block: int
    codes: Array
    scales: Array
    zero_points: Array | None = None

    def dequantized(self) -> Array:
        """float32 ``[N, K]``."""
        wide = np.repeat(self.scales, self.block, 1)[:, : self.codes.shape[1]]
        zero: Any = 2.0 ** (self.bits - 1)
        if self.zero_points is not None:
            zero = np.repeat(self.zero_points, self.block, 1)[:, : self.codes.shape[1]]
        result: Array = (wide * (self.codes.astype(np.float32) - zero)).astype(np.float32)
        return result


@dataclass(frozen=True, kw_only=True)
class ActivationFormat:
    """A row of quantized activations: int8 codes, then float32 scales, float32 scale times sum, int32 sum.

    The last three have one element for each block of ``block`` K; ``depth`` is K before it is filled up. An
    int32 at the end is the number of quads (four K) whose products may be added before they are widened.
    """

    block: int
    depth: int

    @property
    def blocks(self) -> int:
        """Blocks of a row."""
        return -(-self.depth // self.block)

    @property
    def codes(self) -> int:
        """Codes of a row, zeros behind the last K included."""
        return self.blocks * self.block

    @property
    def scaled_sums_at(self) -> int:
        """The byte of a row at which scales times sums start; the scales start behind the codes."""
        return self.codes + 4 * self.blocks

    @property
    def sums_at(self) -> int:
        """The byte of a row at which the sums start."""
        return self.codes + 8 * self.blocks

    @property
    def quads(self) -> int:
        """Quads of a span: a block, or a part of one."""
        return min(self.block, SPAN) // 4

    @property
    def quads_at(self) -> int:
        """The byte of a row at which the number of quads is."""
        return self.codes + 12 * self.blocks

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.quads_at + 4


@dataclass(frozen=True, kw_only=True)
class BlockFormat:
    """The layout of one matrix ``[N, K]``: uint8 ``[panels, blocks, block_bytes]``.

    ``lanes``: columns of a vector; ``vectors``: vectors of a panel. ``scale``: float16 or float32.
    ``offset_type``: of what ``offset`` says, uint8, uint4 (two columns a byte), float16 or float32.
    ``zero_point``: where it is constant.
    """

    bits: int
    block: int
    depth: int
    cols: int
    lanes: int
    vectors: int
    scale: str = "float16"
    offset: Offset = Offset.CONSTANT
    offset_type: str = "float16"
    zero_point: int = 0

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors

    @property
    def panels(self) -> int:
        """Panels, of which the last may be filled up with columns of zeros."""
        return -(-self.cols // self.width)

    @property
    def blocks(self) -> int:
        """Blocks of a column."""
        return -(-self.depth // self.block)

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector of quads."""
        return 4 * self.lanes

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of one block of a panel."""
        return self.width * self.block * self.bits // 8

    @property
    def scale_bytes(self) -> int:
        """Bytes of one scale."""
        return int(self.scale[-2:]) // 8

    @property
    def offsets_at(self) -> int:
        """The byte of a block at which its offsets start."""
        return self.code_bytes + self.width * self.scale_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of a panel."""
        if self.offset is Offset.CONSTANT:
            return self.offsets_at
        half_bytes = {"uint4": 1, "uint8": 2, "float16": 4, "float32": 8}[self.offset_type]
        return self.offsets_at + self.width * half_bytes // 2

    @property
    def activations(self) -> ActivationFormat:
        """The form of the left operand."""
        return ActivationFormat(block=self.block, depth=self.depth)

    def to_text(self) -> str:
        """A text that from_text reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_text(text: str) -> BlockFormat:
        """The format that gave this text."""
        fields = json.loads(text)
        return BlockFormat(**{**fields, "offset": Offset(fields["offset"])})


def plan_format(weights: BlockWeights, lanes: int) -> BlockFormat:
    """The layout for vectors of ``lanes`` columns: the smallest that keeps every number.

    A minimum counts as kept where it is right to the last bit of float32.
    """
    cols, depth = weights.codes.shape
    vectors = min(max(1, _PANEL_COLUMNS // lanes), -(-cols // lanes), 4)
    offset, kind, constant = _offset_of(weights)
    if kind == "uint4" and vectors % 2:
        kind = "uint8"
    return BlockFormat(
        bits=weights.bits, block=weights.block, depth=depth, cols=cols, lanes=lanes, vectors=vectors,
        scale="float16" if _is_half(weights.scales) else "float32",
        offset=offset, offset_type=kind, zero_point=constant,
    )  # fmt: skip


def _is_half(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32) == values).all())


def _offset_of(weights: BlockWeights) -> tuple[Offset, str, int]:
    zero = weights.zero_points
    if zero is None:
        return Offset.CONSTANT, "", 1 << (weights.bits - 1)
    codes = np.clip(np.rint(zero), 0, (1 << weights.bits) - 1)
    if (codes == zero).all():
        first = int(zero.flat[0])
        return (
            (Offset.CONSTANT, "", first)
            if (zero == first).all()
            else (Offset.ZERO_POINT, f"uint{weights.bits}", 0)
        )
    minimum = _minimum(weights)
    with np.errstate(over="ignore"):
        half = minimum.astype(np.float16).astype(np.float64)
    near = np.abs(half - minimum) <= _ROUNDING * np.abs(minimum)
    return Offset.MINIMUM, "float16" if near.all() else "float32", 0


def _minimum(weights: BlockWeights) -> Array:
    assert weights.zero_points is not None
    product: Array = -weights.zero_points.astype(np.float64) * weights.scales.astype(np.float64)
    return product


def pack_blocks(weights: BlockWeights, form: BlockFormat) -> Array:
    """``weights`` in the layout ``form``: uint8 ``[panels, blocks, block_bytes]``."""
    codes, scales = weights.codes, weights.scales
    shape = (form.panels, form.vectors, form.lanes, form.blocks)
    wide = np.zeros((form.panels * form.width, form.blocks * form.block), np.uint8)
    wide[: codes.shape[0], : codes.shape[1]] = codes
    quads: Array
    if form.bits == 4:
        halves: Array = wide.reshape(*shape, form.block // 8, 2, 4)
        quads = halves[..., 0, :] | (halves[..., 1, :] << 4)
    else:
        quads = wide.reshape(*shape, form.block // 4, 4)
    # [panel, vector, lane, block, quad, K] -> [panel, block, quad, vector, lane, K]
    parts = [quads.transpose(0, 3, 4, 1, 2, 5).reshape(form.panels, form.blocks, -1)]
    parts.append(_by_block(scales, form, form.scale))
    if form.offset is Offset.ZERO_POINT:
        assert weights.zero_points is not None
        zeros = _by_block(weights.zero_points, form, "uint8")
        if form.offset_type == "uint4":
            low, high = np.split(zeros, 2, -1)
            zeros = low | (high << 4)
        parts.append(zeros)
    elif form.offset is Offset.MINIMUM:
        parts.append(_by_block(_minimum(weights), form, form.offset_type))
    return np.ascontiguousarray(np.concatenate(parts, -1))


def _by_block(values: Array, form: BlockFormat, dtype: str) -> Array:
    """``values`` [N, blocks] as the bytes of ``dtype``, uint8 [panels, blocks, width * bytes]."""
    wide = np.zeros((form.panels * form.width, form.blocks), dtype)
    wide[: len(values)] = values
    turned = wide.reshape(form.panels, form.width, form.blocks).transpose(0, 2, 1)
    return np.ascontiguousarray(turned).view(np.uint8)
