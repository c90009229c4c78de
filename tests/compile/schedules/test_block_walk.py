from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from assay.compile.targets.target import VectorUnit
from assay.compile.targets.x86_64_v3 import TARGET

UNIT = TARGET.vector_unit
LANES = 8


def make_form(offset: str, block: int = 32, blocks: int = 3, zero_point: int = 0) -> Any:
    from assay.compile.schedules.block_format import BlockFormat, Offset

    return BlockFormat(
        bits=4, block=block, depth=block * blocks, cols=32, lanes=LANES, vectors=4, offset=Offset(offset),
        zero_point=zero_point,
    )  # fmt: skip


def find(form: Any, unit: VectorUnit = UNIT, *, rows: int = 2, vectors: int = 4, far: bool = False) -> Any:
    from assay.compile.schedules.block_dot import block_dot
    from assay.compile.schedules.block_walk import block_walk

    dot = block_dot(unit, form.bits, form.lanes)
    return block_walk(unit, dot, form, rows=rows, vectors=vectors, far=far)


def call(run: Any, function: Any, blocks: int, arrays: list[Any], offsets: list[int]) -> Any:
    """The sums after one call; ``arrays``: sums, activations, weights; ``offsets`` into the second, twice."""
    from assay.compile.schedules.assembly import address
    from assay.compile.schedules.ir import i64

    def arguments(buffers: Any) -> list[Any]:
        sums, x, weights = buffers
        codes = [address(x, offset) for offset in offsets]
        return [i64(blocks), address(sums, 0), *codes, address(weights, 0)]

    return run(function, arrays, arguments)[0]


@pytest.mark.parametrize("offset", ["constant", "symmetric", "zero_point", "minimum"])
@pytest.mark.parametrize(("rows", "vectors", "block"), [(2, 4, 32), (1, 4, 16), (4, 2, 32)], ids=str)
def test_blocks(
    needs_avx2: None, call_function: Any, offset: str, rows: int, vectors: int, block: int
) -> None:
    zero = 9 if offset == "constant" else 0
    form = make_form(offset.replace("symmetric", "constant"), block, zero_point=zero)
    layout, width, blocks = form.activations, vectors * LANES, form.blocks
    generator = np.random.default_rng(rows + vectors)
    codes = generator.integers(-127, 128, (rows, blocks, block), "int8")
    codes[0, 0] = 127
    x_scales = generator.random((rows, blocks), "float32")
    totals = codes.sum(-1, dtype=np.int32)
    x = np.zeros((rows, layout.row_bytes), np.int8)
    x[:, : layout.codes] = codes.reshape(rows, -1)
    scaled = (x_scales * totals).astype(np.float32)
    starts = (layout.codes, layout.scaled_sums_at, layout.sums_at)
    for at, part in zip(starts, (x_scales, scaled, totals), strict=True):
        x[:, at : at + 4 * blocks] = np.ascontiguousarray(part).view(np.int8)
    w = generator.integers(0, 16, (blocks, block, width), "uint8")
    w[0, :, 0] = 15
    scales = generator.random((blocks, width), "float32")
    offsets = generator.integers(0, 16, (blocks, width)).astype(np.float32)
    if offset == "minimum":
        offsets = offsets * scales
    quads = w.reshape(blocks, block // 4, 4, width).transpose(0, 1, 3, 2).reshape(blocks, -1)
    numbers = [scales] if form.offset == "constant" else [scales, offsets]
    weights = np.concatenate([quads, *(np.ascontiguousarray(part).view(np.uint8) for part in numbers)], 1)
    sums = generator.standard_normal((rows, width), "float32")

    real = w.astype(np.float64)
    if offset == "minimum":
        real = real * scales[:, None] + offsets[:, None]
    else:
        real = (real - (zero if form.offset == "constant" else offsets[:, None])) * scales[:, None]
    expected = sums + np.einsum("rbk,rb,bkn->rn", codes.astype(np.float64), x_scales, real)
    function = find(form, rows=rows, vectors=vectors, far=True)
    result = call(call_function, function, blocks, [sums, x, weights], [0, layout.codes])
    np.testing.assert_allclose(result.reshape(rows, width), expected, rtol=2e-5, atol=2e-2)


def test_other_units_have_no_such_walk(other_unit: VectorUnit) -> None:
    assert find(make_form("minimum"), other_unit) is None


def test_products_that_have_no_such_walk() -> None:
    form = make_form("minimum")
    assert find(form) is not None
    assert find(form, rows=4, vectors=4) is None, "more sums than registers"
    assert find(replace(form, block=64)) is None, "sums of 64 K exceed 16 bits"
    assert find(replace(form, bits=8)) is None
    assert find(replace(form, lanes=4)) is None


def test_names_tell_functions_apart() -> None:
    forms = [make_form(kind) for kind in ("constant", "zero_point", "minimum")]
    forms += [make_form("constant", zero_point=8), make_form("minimum", 16), make_form("minimum", blocks=4)]
    found = [find(form, far=far) for form in forms for far in (False, True)]
    assert len({function.name for function in found}) == len(found)
