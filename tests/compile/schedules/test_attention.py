from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import te, tirx  # noqa: E402

from assay.compile.schedules.attention import AttentionForm, attention  # noqa: E402
from assay.compile.targets.target import VectorUnit  # noqa: E402

TOLERANCE = 1e-5

# The kernel for sixteen lanes takes long to compile for a CPU that has eight.
EIGHT_LANES = pytest.mark.parametrize(
    "check", [VectorUnit(bits=256, registers=16)], indirect=True, ids=["8 lanes"]
)


def softmax(x: Any) -> Any:
    largest = x.max(-1, keepdims=True)
    powers = np.exp(x - np.where(np.isinf(largest), 0, largest))
    return powers / powers.sum(-1, keepdims=True)


def heads(x: Any, count: int) -> Any:
    batch, length, width = x.shape
    return x.reshape(batch, length, count, width // count).transpose(0, 2, 1, 3)


def reference(q: Any, k: Any, v: Any, mask: Any = 0.0, *, count: int, scale: float = 1.0) -> Any:
    """Attention of [batch, length, heads * depth] operands as [batch, length, heads, depth]."""
    q, k, v = (heads(x, count) for x in (q, k, v))
    weights = softmax((q @ k.swapaxes(-1, -2) * np.float32(scale) + mask).astype(np.float32))
    return (weights @ v).transpose(0, 2, 1, 3)


def in_place(count: int, depth: int, *, scale: float = 1.0, **options: Any) -> Callable[..., Any]:
    """TE: attention of operands ``[batch, length, heads * depth]``, and a mask ``[..., keys, queries]``."""

    def build(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        def at(b: Any, h: Any, row: Any, column: Any) -> list[Any]:
            return [b, row, h * depth + column]

        form = AttentionForm(
            lead=(q.shape[0], count),
            queries=q.shape[1],
            keys=k.shape[1],
            depth=depth,
            value_depth=depth,
            q=at,
            k=at,
            v=at,
            scale=scale,
            order=(0, 2, 1, 3),
            **options,
        )

        def masked(scores: Any) -> Any:
            if mask is None:
                return scores
            extents = list(mask.shape)

            def value(*index: Any) -> Any:
                at = [0 if isinstance(e, tirx.IntImm) and int(e) == 1 else i
                      for e, i in zip(extents, index, strict=True)]  # fmt: skip
                return scores[index] + mask[tuple(at)]

            return te.compute(scores.shape, value)

        return attention(q, k, v, form, masked)

    return build


def operands(count: int, depth: int) -> list[tuple[tuple[int | str, ...], str]]:
    q, k = (("b", "s", count * depth), "float32"), (("b", "t", count * depth), "float32")
    return [q, k, k]


LENGTHS = [{"b": 1, "s": 1, "t": 1}, {"b": 2, "s": 7, "t": 129}, {"b": 1, "s": 129, "t": 7},
           {"b": 1, "s": 32, "t": 96}, {"b": 1, "s": 130, "t": 200}]  # fmt: skip


def compare(check: Any, count: int, depth: int) -> None:
    check(
        lambda b, *x: b.emit_te(in_place(count, depth, scale=0.3), *x),
        lambda q, k, v: reference(q, k, v, count=count, scale=0.3),
        *operands(count, depth),
        at=LENGTHS,
        expected={"b": 1, "s": 128, "t": 128},
        tolerance=TOLERANCE,
    )


@EIGHT_LANES
@pytest.mark.parametrize(("count", "depth"), [(3, 20), (2, 5)], ids=str)
def test_attention_of_any_length(check: Any, count: int, depth: int) -> None:
    """Depths that vectors do not divide; lengths around whole panels and blocks of keys."""
    compare(check, count, depth)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "depth"), [(3, 20), (2, 5), (2, 64)], ids=str)
def test_attention_of_any_length_and_lanes(check: Any, count: int, depth: int) -> None:
    compare(check, count, depth)


@EIGHT_LANES
def test_attention_of_a_known_length(check: Any) -> None:
    shape = ((1, 37, 48), "float32")
    check(
        lambda b, *x: b.emit_te(in_place(2, 24), *x),
        lambda q, k, v: reference(q, k, v, count=2),
        shape,
        shape,
        shape,
        tolerance=TOLERANCE,
    )


@EIGHT_LANES
def test_attention_of_one_query(check: Any) -> None:
    check(
        lambda b, *x: b.emit_te(in_place(2, 24), *x),
        lambda q, k, v: reference(q, k, v, count=2),
        ((1, 1, 48), "float32"),
        ((1, "t", 48), "float32"),
        ((1, "t", 48), "float32"),
        at=[{"t": t} for t in (1, 5, 150)],
        tolerance=TOLERANCE,
    )


@EIGHT_LANES
@pytest.mark.parametrize(
    "mask",
    [("b", 1, "t", 1), (1, 1, "t", "s"), pytest.param(("b", 3, "t", "s"), marks=pytest.mark.slow)],
    ids=["keys", "keys and queries", "each head"],
)
def test_additive_mask(check: Any, mask: tuple[int | str, ...]) -> None:
    check(
        lambda b, *x: b.emit_te(in_place(3, 20), *x),
        lambda q, k, v, m: reference(q, k, v, m.swapaxes(-1, -2), count=3),
        *operands(3, 20),
        (mask, "float32"),
        at=LENGTHS,
        expected={"b": 1, "s": 128, "t": 128},
        tolerance=TOLERANCE,
    )


def masked_inputs(lowest: float) -> list[Any]:
    """A causal mask over more keys than one block holds; one query sees nothing, another but the last key."""
    generator = np.random.default_rng(5)
    q, k, v = (generator.standard_normal((1, n, 40), np.float32) for n in (150, 250, 250))
    mask = np.where(np.arange(250)[:, None] > np.arange(150), np.float32(lowest), np.float32(0))
    mask[:, 9] = lowest
    mask[:, 11], mask[-1, 11] = lowest, 0
    return [q, k, v, mask[None, None]]


def test_rows_that_are_all_masked(kernels: Any) -> None:
    """As softmax has it: no number behind minus infinity, equal weights behind the lowest number."""
    run = kernels(
        lambda b, *x: b.emit_te(in_place(2, 20), *x),
        *operands(2, 20),
        ((1, 1, "t", "s"), "float32"),
        sizes={"b": 1, "s": 128, "t": 128},
    )
    q, k, v, mask = masked_inputs(-np.inf)
    (got,) = run(q, k, v, mask)
    with np.errstate(invalid="ignore"):
        wanted = reference(q, k, v, mask.swapaxes(-1, -2), count=2)
    assert np.isnan(wanted[:, 9]).all()
    np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(got[0, 11].reshape(-1), v[0, -1], rtol=TOLERANCE)

    q, k, v, mask = masked_inputs(float(np.finfo(np.float32).min))
    (got,) = run(q, k, v, mask)
    wanted = reference(q, k, v, mask.swapaxes(-1, -2), count=2)
    np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(got[0, 9].reshape(-1), v[0].mean(0), rtol=1e-4, atol=TOLERANCE)


def test_guarded_rows_that_are_all_masked_are_zero(kernels: Any) -> None:
    q, k, v, mask = masked_inputs(-np.inf)
    run = kernels(
        lambda b, *x: b.emit_te(in_place(2, 20, zero_masked=True), *x),
        *operands(2, 20),
        (mask.shape, "float32"),
    )
    (got,) = run(q, k, v, mask)
    with np.errstate(invalid="ignore"):
        wanted = reference(q, k, v, mask.swapaxes(-1, -2), count=2)
    wanted[:, 9] = 0
    np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_scores_are_never_all_in_memory(scheduled: Any) -> None:
    """Workspace does not grow with the product of the lengths; the tasks are shared between threads."""
    script = scheduled(
        lambda b, *x: b.emit_te(in_place(12, 64), *x), *operands(12, 64), sizes={"b": 1, "s": 512, "t": 512}
    )
    assert "T.parallel" in script
    allocations = re.findall(r"alloc_buffer\(\((?:T\.int64\()?(\w+)", script)
    assert allocations
    assert max(int(size) for size in allocations) <= 96 * 64


def test_attention_is_vectorized(kernels: Any) -> None:
    source = kernels(
        lambda b, *x: b.emit_te(in_place(12, 64), *x),
        *operands(12, 64),
        sizes={"b": 1, "s": 128, "t": 128},
    ).source("asm")
    for instruction in ("vfmadd", "vmaxps", "vbroadcastss"):
        assert instruction in source
    assert "%ymm" in source
