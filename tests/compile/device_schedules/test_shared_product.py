"""Products through shared memory, run from their source on the CPU, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm import relax, tirx

from assay.compile.device_schedules import shared_product
from assay.compile.device_schedules.shared_tiles import SharedTile, fitted_tile, shared_tiles
from assay.compile.targets import gpu_targets

from .conftest import lowered_call
from .test_conv2d import normal, reference

Array = npt.NDArray[Any]
OnEmulated = Callable[..., Callable[..., Array]]
TARGETS = ("cuda-sm_75", "rocm-gfx1100")


@pytest.mark.parametrize(("rows", "steps", "columns"), [(2, 1, 3), (65, 36, 132)])
def test_sizes_that_tiles_do_not_divide(on_emulated: OnEmulated, rows: int, steps: int, columns: int) -> None:
    a, b = normal(rows, steps), normal(steps, columns)
    found = on_emulated([a.shape, b.shape], relax.op.matmul)(a, b)
    np.testing.assert_allclose(found, a @ b, rtol=1e-5, atol=1e-5)


def test_a_batch_of_symbolic_rows_columns_and_steps(on_emulated: OnEmulated) -> None:
    n = tirx.Var("n", "int64")
    run = on_emulated([(2, n, n), (2, n, n)], relax.op.matmul)
    for size in (1, 6, 67):
        a, b = normal(2, size, size), normal(2, size, size)
        np.testing.assert_allclose(run(a, b), a @ b, rtol=1e-5, atol=1e-4)


def test_what_goes_before_and_after(on_emulated: OnEmulated) -> None:
    a, b, bias, other = normal(3, 10, 12), normal(3, 21, 12), normal(21), normal(3, 10, 21)

    def compute(x: Any, y: Any, z: Any, w: Any) -> Any:
        product = relax.op.matmul(x, relax.op.permute_dims(y, [0, 2, 1]))
        return relax.op.add(relax.op.nn.relu(relax.op.add(product, z)), w)

    found = on_emulated([a.shape, b.shape, bias.shape, other.shape], compute)(a, b, bias, other)
    expected = np.maximum(a @ b.swapaxes(1, 2) + bias, 0) + other
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation", "groups"),
    [
        ((2, 4, 11, 8), (6, 4, 3, 2), 2, 1, 1, 1),
        ((1, 3, 6, 6), (9, 3, 1, 1), 1, 0, 1, 1),
        pytest.param((1, 3, 12, 12), (4, 3, 3, 3), 1, 0, 2, 1, marks=pytest.mark.slow),
        pytest.param((1, 6, 8, 8), (8, 3, 3, 3), 1, 1, 1, 2, marks=pytest.mark.slow),
        pytest.param((1, 5, 9, 9), (70, 5, 1, 1), 2, 0, 1, 1, marks=pytest.mark.slow),
    ],
)
def test_convolutions(
    on_emulated: OnEmulated, x: Any, w: Any, stride: int, padding: int, dilation: int, groups: int
) -> None:
    data, weight = normal(*x), normal(*w)

    def compute(a: Any, b: Any) -> Any:
        return relax.op.nn.conv2d(a, b, strides=stride, padding=padding, dilation=dilation, groups=groups)

    found = on_emulated([x, w], compute)(data, weight)
    expected = reference(data, weight, stride, padding, dilation, groups)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_convolution_of_a_symbolic_batch_with_what_goes_after(on_emulated: OnEmulated) -> None:
    x, w, bias, other = normal(3, 4, 6, 6), normal(7, 4, 3, 3), normal(1, 7, 1, 1), normal(3, 7, 6, 6)
    n = tirx.Var("n", "int64")

    def compute(a: Any, b: Any, c: Any, d: Any) -> Any:
        return relax.op.nn.relu(relax.op.add(relax.op.add(relax.op.nn.conv2d(a, b, padding=1), c), d))

    found = on_emulated([(n, *x.shape[1:]), w.shape, bias.shape, (n, 7, 6, 6)], compute)(x, w, bias, other)
    expected = np.maximum(reference(x, w, 1, 1, 1, 1) + bias + other, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def _every_tile() -> list[Any]:
    return [
        pytest.param(
            name,
            tile,
            id=f"{name}-{tile.rows}x{tile.columns}",
            marks=() if tile.thread_rows * tile.thread_columns == 64 else pytest.mark.slow,
        )
        for name in TARGETS
        for tile in shared_tiles(gpu_targets()[name])
    ]


@pytest.mark.parametrize(("name", "tile"), _every_tile())
def test_no_tile_spills(name: str, tile: SharedTile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_product, "fitted_tile", lambda *_: tile)
    n = tirx.Var("n", "int64")

    def compute(a: Any, b: Any) -> Any:
        return relax.op.nn.relu(relax.op.matmul(a, b))

    form = lowered_call(gpu_targets()[name], [(n, 509), (509, 511)], compute)
    for kernel in form.executable.kernels.values():
        assert kernel.spills == 0
        assert kernel.stack_bytes == 0
        assert kernel.registers is not None
        # As many as let a multiprocessor hold more than one block.
        assert kernel.registers * tile.threads <= 32768 * (2 if name.startswith("rocm") else 1)
        assert tile.shared_bytes - 64 <= kernel.shared_bytes <= tile.shared_bytes + 64


def test_tiles_are_within_the_limits_of_their_targets() -> None:
    for target in gpu_targets().values():
        for tile in shared_tiles(target):
            assert tile.threads <= target.max_threads
            assert tile.shared_bytes <= target.shared_memory_bytes
            assert tile.rows * tile.steps % tile.threads == 0
            assert tile.columns * tile.steps % tile.threads == 0


def test_small_products_have_small_tiles() -> None:
    target = gpu_targets()["cuda-sm_80"]
    tiles = [fitted_tile(target, 1, rows, 4096) for rows in (2, 16, 4096)]
    rows = [tile.rows for tile in tiles]
    assert rows == sorted(rows)
    assert rows[0] <= 32 < rows[-1]
