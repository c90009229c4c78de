"""Attention on devices that the CPU plays, and from its source, against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm import relax, tirx

from assay.compile.device_schedules.attention_tiles import attention_tile
from assay.compile.targets import gpu_targets

from .conftest import lowered_call

Array = npt.NDArray[Any]
OnDevice = Callable[..., Callable[..., Array]]
LEAST = np.finfo(np.float32).min


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def reference(
    q: Array, k: Array, v: Array, scale: float, finish: Callable[[Array], Array] = lambda scores: scores
) -> Array:
    """Attention of [..., length, depth] operands in float64."""
    scores = finish((q.astype(np.float64) @ k.swapaxes(-1, -2)) * scale)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)) @ v


def attention(scale: float, finish: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Relax: attention of [batch, heads, length, depth] operands; ``finish(scores, *others)`` in between."""

    def compute(q: Any, k: Any, v: Any, *others: Any) -> Any:
        emit = relax.BlockBuilder.current().emit
        product = emit(relax.op.matmul(q, emit(relax.op.permute_dims(k, [0, 1, 3, 2]))))
        scores = emit(relax.op.multiply(product, relax.const(np.float32(scale))))
        if finish is not None:
            scores = emit(finish(scores, *others))
        return relax.op.matmul(emit(relax.op.nn.softmax(scores, -1)), v)

    return compute


def shapes(heads: int, queries: Any, keys: Any, depth: int, value_depth: int | None = None) -> list[Any]:
    rest = [(1, heads, keys, depth), (1, heads, keys, value_depth or depth)]
    return [(1, heads, queries, depth), *rest]


def close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def check_sizes(on: OnDevice, sizes: Sequence[int]) -> None:
    given = shapes(*sizes)
    q, k, v = (normal(*shape) for shape in given)
    close(on(given, attention(0.3))(q, k, v), reference(q, k, v, 0.3))


def check_symbolic(on: OnDevice) -> None:
    s, t = tirx.Var("s", "int64"), tirx.Var("t", "int64")
    run = on([*shapes(2, s, t, 20), (1, 1, 1, t)], attention(0.3, relax.op.add))
    for queries, keys in ((1, 1), (1, 40), (37, 1), (64, 63)):
        q, k, v = (normal(*shape) for shape in shapes(2, queries, keys, 20))
        mask = normal(1, 1, 1, keys)
        close(run(q, k, v, mask), reference(q, k, v, 0.3, lambda scores, mask=mask: scores + mask))


def check_masks(on: OnDevice) -> None:
    """One number for what is hidden, of which there are whole blocks of keys, and rows that see nothing."""
    given, mask = shapes(2, 70, 130, 16), np.zeros((1, 1, 70, 130), np.float32)
    mask[..., :80] = LEAST
    mask[..., 5, :] = LEAST
    mask[..., 9, :100] = -np.inf
    q, k, v = (normal(*shape) for shape in given)
    found = on([*given, mask.shape], attention(0.25, relax.op.add))(q, k, v, mask)
    # In float32, what is added to the least number is lost.
    close(found, reference(q, k, v, 0.25, lambda scores: scores.astype(np.float32) + mask))


def check_soft_cap(on: OnDevice) -> None:
    """A chain of steps, one with another number for each query and key of each head."""
    given, bias = shapes(3, 19, 45, 8, 24), normal(3, 19, 45)

    def finish(scores: Any, bias: Any) -> Any:
        emit = relax.BlockBuilder.current().emit
        small = emit(relax.op.divide(scores, relax.const(np.float32(3))))
        capped = emit(relax.op.multiply(emit(relax.op.tanh(small)), relax.const(np.float32(3))))
        return relax.op.add(capped, bias)

    q, k, v = (normal(*shape) for shape in given)
    found = on([*given, bias.shape], attention(1.5, finish))(q, k, v, bias)
    close(found, reference(q, k, v, 1.5, lambda scores: np.tanh(scores / 3) * 3 + bias))


def check_guard(on: OnDevice) -> None:
    """A selection, zeros for rows that see nothing, keys and values of fewer heads, and a symbolic batch."""
    b, heads = tirx.Var("b", "int64"), 4

    def compute(q: Any, k: Any, v: Any, hidden: Any) -> Any:
        emit = relax.BlockBuilder.current().emit

        def repeated(x: Any) -> Any:
            wide = emit(relax.op.broadcast_to(emit(relax.op.expand_dims(x, 2)), (b, 2, 2, 33, 8)))
            return emit(relax.op.reshape(wide, (b, heads, 33, 8)))

        product = emit(relax.op.matmul(q, emit(relax.op.permute_dims(repeated(k), [0, 1, 3, 2]))))
        visible = emit(relax.op.less(hidden, relax.const(np.float32(0.5))))
        scores = emit(relax.op.where(visible, product, relax.const(np.float32(-np.inf))))
        raw = emit(relax.op.nn.softmax(scores, -1))
        zero = relax.const(np.float32(0))
        weights = emit(relax.op.where(emit(relax.op.isnan(raw)), zero, raw))
        turned = emit(relax.op.permute_dims(emit(relax.op.matmul(weights, repeated(v))), [0, 2, 1, 3]))
        return relax.op.reshape(turned, (b, 33, heads * 8))

    run = on([(b, heads, 33, 8), (b, 2, 33, 8), (b, 2, 33, 8), (1, 1, 33, 33)], compute)
    q, k, v = normal(2, heads, 33, 8), normal(2, 2, 33, 8), normal(2, 2, 33, 8)
    hidden = np.triu(np.ones((1, 1, 33, 33), np.float32), 1)
    hidden[..., 7, :] = 1
    with np.errstate(invalid="ignore"):
        expected = reference(
            q, k.repeat(2, 1), v.repeat(2, 1), 1, lambda scores: np.where(hidden > 0.5, -np.inf, scores)
        )
    assert np.isnan(expected[..., 7, :]).all()
    expected = np.where(np.isnan(expected), 0, expected)
    close(run(q, k, v, hidden), expected.transpose(0, 2, 1, 3).reshape(2, 33, heads * 8))


# Sizes that no tile divides, and that all do; values of another depth than keys.
SIZES = [
    (2, 37, 45, 20),
    pytest.param((3, 64, 64, 32), marks=pytest.mark.slow),
    pytest.param((1, 130, 70, 64, 10), marks=pytest.mark.slow),
    pytest.param((1, 5, 67, 7, 129), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(on_device: OnDevice, sizes: Sequence[int]) -> None:
    check_sizes(on_device, sizes)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes_from_source(on_emulated: OnDevice, sizes: Sequence[int]) -> None:
    check_sizes(on_emulated, sizes)


def test_symbolic_sizes(on_device: OnDevice) -> None:
    check_symbolic(on_device)


@pytest.mark.slow
def test_symbolic_sizes_from_source(on_emulated: OnDevice) -> None:
    check_symbolic(on_emulated)


def test_masks(on_device: OnDevice) -> None:
    check_masks(on_device)


def test_masks_from_source(on_emulated: OnDevice) -> None:
    check_masks(on_emulated)


def test_rows_that_see_nothing(on_device: OnDevice) -> None:
    check_guard(on_device)


@pytest.mark.slow
def test_rows_that_see_nothing_from_source(on_emulated: OnDevice) -> None:
    check_guard(on_emulated)


def test_a_soft_cap_and_a_bias(on_device: OnDevice) -> None:
    check_soft_cap(on_device)


@pytest.mark.slow
def test_a_soft_cap_and_a_bias_from_source(on_emulated: OnDevice) -> None:
    check_soft_cap(on_emulated)


@pytest.mark.parametrize("name", ["opencl", "vulkan", "webgpu", "metal"])
def test_the_scores_are_never_in_memory(name: str) -> None:
    """One launch, and no memory beside operands and result; what there is else grows with the length."""
    s = tirx.Var("s", "int64")
    alone = lowered_call(gpu_targets()[name], shapes(4, s, s, 32), attention(0.3))
    assert alone.plan is not None
    assert [kernel.name for kernel in alone.plan.kernels] == ["attention_kernel"]
    assert len(alone.plan.steps) == 1
    assert [storage.bytes for storage in alone.plan.storages] == [("*", "s", 4 * 4 * 32)]

    def of_results(q: Any, k: Any, v: Any) -> Any:
        emit = relax.BlockBuilder.current().emit
        return attention(0.3)(q, k, emit(relax.op.nn.relu(v)))

    sizes = {}
    for length in (64, 4096):
        given = shapes(4, s, s, 32)
        form = lowered_call(gpu_targets()[name], given, of_results, others=("relu",), length=length)
        sizes[length] = form.workspace.maximum_bytes
    assert sizes == {length: 4 * 4 * 32 * length for length in sizes}


def test_what_does_not_fit_stays_apart() -> None:
    """A head too large for registers, and more operands than a kernel may have."""
    large = lowered_apart("vulkan", shapes(1, 8, 8, 1024), attention(0.3))
    assert "attention_kernel" not in large

    def finish(scores: Any, *masks: Any) -> Any:
        emit = relax.BlockBuilder.current().emit
        for mask in masks:
            scores = emit(relax.op.add(scores, mask))
        return scores

    masked = [*shapes(1, 8, 8, 16), *[(1, 1, 8, 8)] * 5]
    assert "attention_kernel" not in lowered_apart("vulkan", masked, attention(0.3, finish))
    assert "attention_kernel" in lowered_apart("vulkan", masked[:-1], attention(0.3, finish))


def lowered_apart(name: str, given: Sequence[Sequence[Any]], compute: Callable[..., Any]) -> list[str]:
    """The kernels of ``compute``."""
    form = lowered_call(gpu_targets()[name], given, compute, others=("transpose", "softmax"))
    assert form.plan is not None
    return [kernel.name for kernel in form.plan.kernels]


@pytest.mark.parametrize("name", ["cuda-sm_75", "rocm-gfx1100"])
@pytest.mark.parametrize("depth", [64, pytest.param(256, marks=pytest.mark.slow)])
def test_no_tile_spills(name: str, depth: int) -> None:
    s = tirx.Var("s", "int64")
    target = gpu_targets()[name]
    form = lowered_call(target, shapes(2, s, s, depth), attention(0.3))
    tile = attention_tile(target, depth, depth)
    assert tile is not None
    (kernel,) = form.executable.kernels.values()
    assert kernel.spills == 0
    assert kernel.stack_bytes == 0
    assert abs(kernel.shared_bytes - tile.shared_bytes(depth)) <= 64


def test_tiles_are_within_the_limits_of_their_targets() -> None:
    for target in gpu_targets().values():
        for depth in (1, 7, 32, 64, 96, 128, 256):
            tile = attention_tile(target, depth, depth)
            if tile is None or tile.down == 1:
                continue
            assert tile.threads <= target.max_threads
            assert tile.shared_bytes(depth) <= target.shared_memory_bytes
            assert tile.keys == tile.down * tile.key_rows
            assert tile.down * tile.depth_rows >= depth
