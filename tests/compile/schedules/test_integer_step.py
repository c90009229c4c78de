from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.targets.target import VectorUnit
from assay.compile.targets.x86_64_v3 import TARGET

UNIT = TARGET.vector_unit
LANES = 8


def forms() -> dict[str, Any]:
    from assay.compile.schedules.multiply_add import PairsOf16, QuadsOf8Saturating

    return {"pairs": PairsOf16(), "quads": QuadsOf8Saturating()}


def call(run: Any, name: str, rows: int, vectors: int, offsets: list[int], a: Any, b: Any, sums: Any) -> Any:
    """``sums`` [rows, vectors * 8] after one call on A [rows, K] and the panels B."""
    from assay.compile.schedules.assembly import address
    from assay.compile.schedules.integer_step import integer_step

    function = integer_step(UNIT, forms()[name], rows=rows, vectors=vectors, together=len(offsets))
    assert function is not None

    def arguments(buffers: Any) -> list[Any]:
        left, right, totals = buffers
        return [
            *(address(totals, i * vectors * LANES) for i in range(rows)),
            *(address(left, i * a.shape[1]) for i in range(rows)),
            *(address(left, offset) for offset in offsets),
            address(right, 0),
        ]

    return run(function, (a, b, sums), arguments)[2].reshape(rows, -1)


@pytest.mark.parametrize("name", ["pairs", "quads"])
@pytest.mark.parametrize(
    ("rows", "vectors", "together"),
    [(1, 1, 1), (1, 2, 3), (2, 1, 1), (5, 1, 3), (7, 1, 2), (3, 2, 1), (4, 2, 4), (2, 3, 2), (1, 4, 2)],
    ids=str,
)
def test_a_step(
    needs_avx2: None, call_function: Any, name: str, rows: int, vectors: int, together: int
) -> None:
    generator = np.random.default_rng(rows * vectors + together)
    depth = forms()[name].depth
    low, high, kind = (0, 256, "uint8") if name == "quads" else (-3000, 3000, "int16")
    a = generator.integers(low, high, (rows, 40), kind)
    offsets = [int(at) for at in generator.choice(40 // depth, together, replace=False) * depth]
    # As many products of uint8 and weights this small as are added in 16 bits fit them.
    b = generator.integers(
        -14, 15, (together, vectors * LANES, depth), "int8" if name == "quads" else "int16"
    )
    sums = generator.integers(-1000, 1000, (rows, vectors * LANES), "int32")
    taken = np.stack([a[:, at : at + depth] for at in offsets]).astype(np.int32)
    expected = sums + np.einsum("sik,sjk->ij", taken, b.astype(np.int32))
    np.testing.assert_array_equal(call(call_function, name, rows, vectors, offsets, a, b, sums), expected)


def test_other_units_have_no_such_step(other_unit: VectorUnit) -> None:
    from assay.compile.schedules.integer_step import integer_step

    for form in forms().values():
        assert integer_step(other_unit, form, rows=1, vectors=1, together=1) is None


def test_tiles_that_do_not_fit_the_registers() -> None:
    from assay.compile.schedules.integer_step import integer_step
    from assay.compile.schedules.multiply_add import FLOAT32

    quads = forms()["quads"]
    assert integer_step(UNIT, quads, rows=7, vectors=2, together=1) is None
    assert integer_step(UNIT, quads, rows=10, vectors=1, together=1) is None
    assert integer_step(UNIT, FLOAT32, rows=1, vectors=1, together=1) is None
