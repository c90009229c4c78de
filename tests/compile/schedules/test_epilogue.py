"""What may follow a product on its tile, and what must wait until the product is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

ROWS, DEPTH, COLS = 5, 9, 20


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


B = normal(DEPTH, COLS)


def product(check: Any, builder: Any, x: Any) -> Any:
    from tvm import relax

    from assay.compile.schedules.gemm import pack_panels, packed_matmul
    from assay.compile.schedules.tiles import choose_panel_width

    panels = pack_panels(B, choose_panel_width(check.unit, ROWS, COLS))
    return builder.emit_te(packed_matmul, x, relax.const(panels), COLS)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _in_eight_bits(x: Any, bounded: bool) -> Any:
    from tvm import te, tirx

    def element(*i: Any) -> Any:
        whole = tirx.Cast("int32", x[i] * tirx.const(200.0, "float32"))
        return tirx.Cast("uint8", tirx.min(tirx.max(whole, 0), 255) if bounded else whole)

    return te.compute(x.shape, element, name="narrow")


def _widened(x: Any) -> Any:
    from tvm import te, tirx

    return te.compute(x.shape, lambda *i: tirx.Cast("int32", x[i]) * 3, name="widen")


Tail = tuple[Callable[..., Any], Callable[..., Any]]


def _tails() -> dict[str, tuple[Tail, list[tuple[tuple[int, ...], str]]]]:
    """By name: what follows the product, the same in NumPy, and the other inputs."""

    def relax() -> Any:
        from tvm import relax

        return relax.op

    return {
        "column vector": (
            (lambda b, y, r: relax().add(r, y), lambda y, r: r + y),
            [((ROWS, 1), "float32")],
        ),
        "row vector": ((lambda b, y, r: relax().subtract(y, r), lambda y, r: y - r), [((COLS,), "float32")]),
        "itself twice": (
            (lambda b, y: relax().multiply(y, b.emit(relax().sigmoid(y))), lambda y: y * sigmoid(y)),
            [],
        ),
        "eight bits that are read again": (
            (
                lambda b, y: b.emit_te(_widened, b.emit_te(_in_eight_bits, y, bounded=True)),
                lambda y: 3 * np.clip(np.trunc(y * 200).astype("i4"), 0, 255),
            ),
            [],
        ),
        "eight bits that wrap": (
            (
                lambda b, y: b.emit_te(_widened, b.emit_te(_in_eight_bits, y, bounded=False)),
                lambda y: 3 * np.trunc(y * 200).astype("i4").astype("u1").astype("i4"),
            ),
            [],
        ),
        "other type": (
            (
                lambda b, y: relax().astype(b.emit(relax().round(y)), "int32"),
                lambda y: np.rint(y).astype("i4"),
            ),
            [],
        ),
        "choice by a mask": (
            (lambda b, y, m, r: relax().where(m, y, r), lambda y, m, r: np.where(m, y, r)),
            [((ROWS, COLS), "bool"), ((ROWS, COLS), "float32")],
        ),
        "larger result": (
            (lambda b, y, r: relax().add(y, r), lambda y, r: y + r),
            [((3, ROWS, COLS), "float32")],
        ),
        "transposition": ((lambda b, y: relax().permute_dims(y), lambda y: y.T), []),
        "row maximum": ((lambda b, y: relax().max(y, axis=1), lambda y: y.max(1)), []),
    }


@pytest.mark.parametrize("name", _tails())
def test_what_follows_a_product(check: Any, name: str) -> None:
    (tail, reference), inputs = _tails()[name]

    check(
        lambda builder, x, *others: builder.emit(tail(builder, product(check, builder, x), *others)),
        lambda x, *others: reference(x @ B, *others),
        ((ROWS, DEPTH), "float32"),
        *inputs,
        tolerance=2e-5,
    )


def split(build: Callable[..., Any]) -> tuple[int, int]:
    """How many blocks run on the tile, and how many after it."""
    import tvm
    from tvm import relax, tirx

    from assay.compile.schedules.blocks import read_function
    from assay.compile.schedules.epilogue import split_epilogue
    from assay.compile.schedules.gemm import pack_panels, packed_matmul

    x = relax.Var("x", relax.TensorType((ROWS, DEPTH), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_te(packed_matmul, x, relax.const(pack_panels(B, 8)), COLS)
            result = builder.emit_output(build(builder, y))
        builder.emit_func_output(result)
    transform = relax.transform
    passes = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ]
    module = tvm.transform.Sequential([*passes, transform.DeadCodeElimination()])(builder.get())
    (function,) = (f for f in module.functions.values() if isinstance(f, tirx.PrimFunc))
    fused = read_function(function)
    anchor = fused.anchor()
    assert anchor is not None
    epilogue, after = split_epilogue(fused, anchor)
    return len(epilogue.blocks), len(after)


def test_elementwise_blocks_run_on_the_tile(tvm: Any) -> None:
    from tvm import relax

    def bias_and_relu(builder: Any, y: Any) -> Any:
        return builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(y, relax.const(normal(COLS))))))

    assert split(bias_and_relu) == (2, 0)
    assert split(lambda builder, y: y) == (0, 0)


def test_block_with_more_elements_runs_after_it(tvm: Any) -> None:
    from tvm import relax

    larger = relax.const(normal(3, ROWS, COLS))
    assert split(lambda builder, y: builder.emit(relax.op.add(y, larger))) == (0, 1)
