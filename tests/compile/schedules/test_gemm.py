from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

Epilogue = tuple[Callable[..., Any], Callable[..., Any]]
Kernel = Callable[..., Any]

TOLERANCE = 2e-5


def erf(x: Any) -> Any:
    return np.vectorize(math.erf)(x)


def gelu(x: Any) -> Any:
    return (x * 0.5 * (1 + erf(x / math.sqrt(2)))).astype(np.float32)


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def weights(depth: int, cols: int) -> Any:
    return (normal(depth, cols) * depth**-0.5).astype(np.float32)


def packed(unit: Any, builder: Any, x: Any, matrix: Any, expected_rows: int) -> Any:
    from tvm import relax

    from assay.compile.schedules.gemm import pack_panels, packed_matmul
    from assay.compile.schedules.tiles import choose_panel_width

    cols = matrix.shape[1]
    panels = pack_panels(matrix, choose_panel_width(unit, expected_rows, cols))
    return builder.emit_te(packed_matmul, x, relax.const(panels), cols)


def bias(builder: Any, y: Any, cols: int) -> Any:
    from tvm import relax

    return builder.emit(relax.op.add(y, relax.const(normal(cols))))


def products(check: Any, rows: Sequence[int], depth: int, cols: int) -> None:
    """One product for each number of rows, none fused with anything."""
    from tvm import relax

    b = weights(depth, cols)

    def build(builder: Any, *inputs: Any) -> Any:
        return relax.Tuple([packed(check.unit, builder, x, b, m) for x, m in zip(inputs, rows, strict=True)])

    check(
        build,
        lambda *arrays: tuple(a @ b for a in arrays),
        *(((m, depth), "float32") for m in rows),
        tolerance=TOLERANCE,
    )


@pytest.mark.parametrize(
    ("rows", "depth", "cols"),
    [((1, 2, 5, 6, 13), 33, 24), ((3, 14, 131), 7, 100), ((1, 49), 64, 7), ((4,), 3, 1000), ((1,), 1, 1)],
    ids=str,
)
def test_packed_product(check: Any, rows: tuple[int, ...], depth: int, cols: int) -> None:
    products(check, rows, depth, cols)


@pytest.mark.parametrize(("rows", "depth", "cols"), [(42, 1536, 40), (131, 2309, 24)])
def test_long_depths_are_walked_in_blocks(check: Any, rows: int, depth: int, cols: int) -> None:
    from assay.compile.schedules.depth_blocks import choose_block_depth

    unit = check.unit
    several = choose_block_depth(depth, rows, unit.l2_bytes, 4)
    assert (several is None) == (4 * rows * depth <= unit.l2_bytes // 2)
    products(check, [rows], depth, cols)


@pytest.mark.slow
@pytest.mark.parametrize("cols", [7, 24, 100, 1000])
@pytest.mark.parametrize("depth", [5, 64, 131])
def test_packed_products_of_many_sizes(check: Any, depth: int, cols: int) -> None:
    products(check, [*range(1, 15), 49, 131], depth, cols)


def residual(builder: Any, y: Any, r: Any) -> Any:
    from tvm import relax

    return builder.emit(relax.op.add(r, y))


def activated(name: str) -> Callable[..., Any]:
    def apply(builder: Any, y: Any) -> Any:
        from tvm import relax

        return builder.emit(getattr(relax.op.nn, name)(y))

    return apply


@pytest.mark.parametrize("cols", [pytest.param(24, marks=pytest.mark.slow), 100])
def test_epilogues_with_symbolic_rows(check: Any, cols: int) -> None:
    """Bias with ReLU, bias with GELU, and bias with a residual that another kernel also reads."""
    from tvm import relax

    b, c = weights(40, cols), normal(cols)

    def build(builder: Any, x: Any, r: Any) -> Any:
        def product() -> Any:
            return bias(builder, packed(check.unit, builder, x, b, 32), cols)

        results = [activated("relu")(builder, product()), activated("gelu")(builder, product())]
        return relax.Tuple([*results, residual(builder, product(), r)])

    def reference(x: Any, r: Any) -> Any:
        z = x @ b + c
        return np.maximum(z, 0), gelu(z), r + z

    check(
        build,
        reference,
        (("m", 40), "float32"),
        (("m", cols), "float32"),
        at=[{"m": m} for m in (1, 2, 3, 7, 13, 32, 71)],
        expected={"m": 32},
        tolerance=TOLERANCE,
    )


def test_leading_dimensions_count_as_rows(check: Any) -> None:
    b = weights(12, 20)

    def build(builder: Any, x: Any) -> Any:
        return activated("relu")(builder, bias(builder, packed(check.unit, builder, x, b, 48), 20))

    check(
        build,
        lambda x: np.maximum(x @ b + normal(20), 0),
        (("b", 3, "s", 12), "float32"),
        at=[{"b": 1, "s": 1}, {"b": 2, "s": 5}],
        expected={"b": 2, "s": 8},
        tolerance=TOLERANCE,
    )


def test_product_that_two_consumers_read(check: Any) -> None:
    """A row sum cannot run on a tile, so that the product has to be stored too."""
    from tvm import relax

    b = weights(16, 20)

    def build(builder: Any, x: Any) -> Any:
        y = packed(check.unit, builder, x, b, 6)
        return relax.Tuple(
            [
                builder.emit(relax.op.nn.softmax(y)),
                builder.emit(relax.op.nn.relu(y)),
                builder.emit(relax.op.permute_dims(y)),
            ]
        )

    def reference(x: Any) -> Any:
        y = x @ b
        e = np.exp(y - y.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True), np.maximum(y, 0), y.T

    check(build, reference, ((6, 16), "float32"), tolerance=TOLERANCE)


SIZES = [(1, 1), (1, 3), (2, 17), (1, 41), (3, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("transpose_b", [False, True], ids=["plain", "transposed"])
def test_batched_product_of_symbolic_sizes(check: Any, *, transpose_b: bool) -> None:
    from tvm import relax

    from assay.compile.schedules.gemm import batched_matmul

    def build(builder: Any, q: Any, k: Any) -> Any:
        scores = builder.emit_te(batched_matmul, q, k, transpose_b)
        return builder.emit(relax.op.multiply(scores, relax.const(np.float32(0.125))))

    check(
        build,
        lambda q, k: (q @ (k.swapaxes(-1, -2) if transpose_b else k)) * np.float32(0.125),
        (("b", 3, "s", 20), "float32"),
        (("b", 3, "s", 20) if transpose_b else ("b", 3, 20, "s"), "float32"),
        at=[{"b": b, "s": s} for b, s in SIZES],
        expected={"b": 1, "s": 64},
        tolerance=TOLERANCE,
    )


def test_batched_product_over_a_symbolic_depth(check: Any) -> None:
    from assay.compile.schedules.gemm import batched_matmul

    check(
        lambda builder, p, v: builder.emit_te(batched_matmul, p, v, False),
        lambda p, v: p @ v,
        (("b", 2, "s", "s"), "float32"),
        (("b", 2, "s", 33), "float32"),
        at=[{"b": b, "s": s} for b, s in SIZES],
        expected={"b": 1, "s": 64},
        tolerance=TOLERANCE,
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (14, 64, 40)], ids=str)
def test_batched_product_of_static_sizes(check: Any, shape: tuple[int, int, int]) -> None:
    from assay.compile.schedules.gemm import batched_matmul

    m, k, n = shape
    check(
        lambda builder, a, b: builder.emit_te(batched_matmul, a, b, False),
        lambda a, b: a @ b,
        ((3, m, k), "float32"),
        ((3, k, n), "float32"),
        tolerance=TOLERANCE,
    )


def test_panels_are_padded_with_zeros() -> None:
    from assay.compile.schedules.gemm import pack_panels

    b = normal(3, 5)
    panels = pack_panels(b, 4)
    assert panels.shape == (2, 3, 4)
    np.testing.assert_array_equal(panels[0], b[:, :4])
    np.testing.assert_array_equal(panels[1], np.pad(b[:, 4:], ((0, 0), (0, 3))))


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("depth", [64, 37])
def test_a_single_row_is_multiplied_without_packing(check: Any, depth: int, *, transpose_b: bool) -> None:
    from assay.compile.schedules.gemm import batched_matmul

    check(
        lambda builder, a, b: builder.emit_te(batched_matmul, a, b, transpose_b),
        lambda a, b: np.matmul(a, b.swapaxes(-1, -2) if transpose_b else b),
        ((3, 1, depth), "float32"),
        ((3, "keys", depth) if transpose_b else (3, depth, "keys"), "float32"),
        at=[{"keys": 1}, {"keys": 50}],
        tolerance=1e-4,
    )
