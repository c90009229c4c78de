from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.schedules.block_format import BlockFormat, BlockWeights, Offset, pack_blocks, plan_format


def unpacked(packed: Any, form: BlockFormat) -> Any:
    """float32 ``[N, K]`` of packed weights, one number after the other."""
    result = np.zeros((form.cols, form.depth), np.float32)
    for n in range(form.cols):
        panel, col = divmod(n, form.width)
        vector, lane = divmod(col, form.lanes)
        for k in range(form.depth):
            block, inside = divmod(k, form.block)
            row = packed[panel, block]
            quad = inside // (8 if form.bits == 4 else 4)
            code = int(row[((quad * form.vectors + vector) * form.lanes + lane) * 4 + inside % 4])
            if form.bits == 4:
                code = code >> 4 if inside // 4 % 2 else code & 15

            def number(at: int, dtype: str) -> float:
                return float(row[at : at + np.dtype(dtype).itemsize].view(dtype)[0])  # noqa: B023

            scale = number(form.code_bytes + col * form.scale_bytes, form.scale)
            result[n, k] = scale * code + offset(form, row, col, scale, number)
    return result


def offset(form: BlockFormat, row: Any, col: int, scale: float, number: Any) -> float:
    """What is added to scale * code."""
    at = form.offsets_at
    if form.offset is Offset.CONSTANT:
        return -scale * form.zero_point
    if form.offset is Offset.MINIMUM:
        return number(at + col * np.dtype(form.offset_type).itemsize, form.offset_type)  # type: ignore[no-any-return]
    if form.offset_type == "uint8":
        return -scale * int(row[at + col])
    half = form.width // 2
    pair = int(row[at + col % half])
    return -scale * (pair >> 4 if col >= half else pair & 15)


def weights(bits: int, block: int, zero_points: Any = None, dtype: str = "float16") -> BlockWeights:
    generator = np.random.default_rng(bits + block)
    shape = (45, -(-70 // block))
    scales = (generator.random(shape) * 0.1 + 0.01).astype(dtype).astype(np.float32)
    points = zero_points(generator, scales) if zero_points else None
    codes = generator.integers(0, 1 << bits, (45, 70)).astype(np.uint8)
    return BlockWeights(bits=bits, block=block, codes=codes, scales=scales, zero_points=points)


def whole(generator: Any, scales: Any) -> Any:
    return generator.integers(0, 16, scales.shape).astype(np.float32)


def minimums(generator: Any, scales: Any) -> Any:
    return generator.standard_normal(scales.shape).astype(np.float16).astype(np.float32) / scales


def real(generator: Any, scales: Any) -> Any:
    return generator.standard_normal(scales.shape).astype(np.float32)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_points", [None, whole, minimums, real])
def test_every_number_is_kept(bits: int, block: int, lanes: int, zero_points: Any) -> None:
    given = weights(bits, block, zero_points)
    form = plan_format(given, lanes)
    packed = pack_blocks(given, form)
    assert packed.shape == (form.panels, form.blocks, form.block_bytes)
    np.testing.assert_allclose(unpacked(packed, form), given.dequantized(), rtol=3e-6, atol=3e-6)
    assert BlockFormat.from_text(form.to_text()) == form


def test_the_smallest_layout_that_keeps_every_number() -> None:
    for zero_points, offset, kind in ((None, "constant", ""), (whole, "zero_point", "uint4")):
        form = plan_format(weights(4, 32, zero_points), 8)
        assert (form.scale, form.offset, form.offset_type) == ("float16", offset, kind)
    assert plan_format(weights(4, 32, minimums), 8).offset_type == "float16"
    assert plan_format(weights(4, 32, real), 8).offset_type == "float32"
    assert plan_format(weights(4, 32, None, "float32"), 8).scale == "float32"


def test_bytes_are_what_the_numbers_take() -> None:
    """4 bits a code, and two float16 for a block of 32, for whole panels."""
    generator = np.random.default_rng(0)
    scales = generator.random((64, 4)).astype(np.float16).astype(np.float32) + np.float32(1)
    codes = generator.integers(0, 16, (64, 128)).astype(np.uint8)
    given = BlockWeights(bits=4, block=32, codes=codes, scales=scales.astype(np.float16).astype(np.float32))
    assert pack_blocks(given, plan_format(given, 8)).nbytes == 64 * 128 // 2 + 64 * 4 * 2
