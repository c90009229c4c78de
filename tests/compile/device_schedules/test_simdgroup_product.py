"""Products by Metal's SIMD-group matrices, run from their source on the CPU, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm import relax, tirx

from assay.compile.device_schedules import simdgroup_product
from assay.compile.device_schedules.shared_tiles import (
    SimdgroupTile,
    fitted_simdgroup_tile,
    simdgroup_tiles,
)
from assay.compile.targets import gpu_targets
from assay.runtime.device_code import CodeFormat

from .conftest import emulated_call, lowered_call
from .test_conv2d import normal, reference

Array = npt.NDArray[Any]
DTYPES = {"float32": 4, "float16": 2}
METAL = gpu_targets()["metal"]


def close(found: Array, expected: Array, dtype: str) -> None:
    """Sums of float32; results of float16 are rounded once."""
    tolerance = {"float32": 1e-5, "float16": 1e-3}[dtype]
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=4 * tolerance)


def made(dtype: str, *shape: int) -> tuple[Array, Array]:
    """Random numbers of ``dtype``, and the same in float64."""
    values = normal(*shape).astype(dtype)
    return values, values.astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", simdgroup_tiles(), ids=lambda tile: f"{tile.rows}x{tile.columns}")
def test_sizes_that_no_tile_divides(
    dtype: str, tile: SimdgroupTile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simdgroup_product, "fitted_simdgroup_tile", lambda *_: tile)
    (a, x), (b, y), (bias, z) = made(dtype, 2, 67, 43), made(dtype, 2, 43, 131), made(dtype, 131)

    def compute(left: Any, right: Any, added: Any) -> Any:
        return relax.op.nn.relu(relax.op.add(relax.op.matmul(left, right), added))

    found = emulated_call("metal", tmp_path, [a.shape, b.shape, bias.shape], compute, [dtype] * 3)(a, b, bias)
    close(found, np.maximum(x @ y + z, 0), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("subscripts", ["ik,jk->ij", "ki,kj->ij", "ki,jk->ij"])
@pytest.mark.parametrize(("rows", "steps", "columns"), [(40, 24, 56), (9, 5, 11)])
def test_operands_that_lie_either_way(
    dtype: str, subscripts: str, rows: int, steps: int, columns: int, tmp_path: Path
) -> None:
    """Both lie in threadgroup memory as they do in the model, brought as vectors or one by one."""
    sizes = {"i": rows, "k": steps, "j": columns}
    (a, x), (b, y) = (
        made(dtype, *(sizes[letter] for letter in each)) for each in subscripts.partition("->")[0].split(",")
    )

    def compute(left: Any, right: Any) -> Any:
        return relax.op.einsum((left, right), subscripts)

    found = emulated_call("metal", tmp_path, [a.shape, b.shape], compute, [dtype] * 2)(a, b)
    close(found, np.einsum(subscripts, x, y), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_symbolic_sizes(dtype: str, tmp_path: Path) -> None:
    n = tirx.Var("n", "int64")
    run = emulated_call("metal", tmp_path, [(n, n), (n, n)], relax.op.matmul, [dtype] * 2)
    for size in (1, 9, 70):
        (a, x), (b, y) = made(dtype, size, size), made(dtype, size, size)
        close(run(a, b), x @ y, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x", "w", "stride", "groups"), [((2, 5, 9, 7), (6, 5, 3, 3), 2, 1), ((1, 8, 6, 6), (18, 4, 1, 1), 1, 2)]
)
def test_convolutions(dtype: str, x: Any, w: Any, stride: int, groups: int, tmp_path: Path) -> None:
    (data, _), (weight, _) = made(dtype, *x), made(dtype, *w)
    padding = w[-1] // 2

    def compute(a: Any, b: Any) -> Any:
        return relax.op.nn.conv2d(a, b, strides=stride, padding=padding, groups=groups)

    found = emulated_call("metal", tmp_path, [x, w], compute, [dtype] * 2)(data, weight)
    wide = (data.astype(np.float32), weight.astype(np.float32))
    close(found, reference(*wide, stride, padding, 1, groups), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", simdgroup_tiles(), ids=lambda tile: f"{tile.rows}x{tile.columns}")
def test_source_multiplies_matrices_within_the_limits(
    dtype: str, tile: SimdgroupTile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simdgroup_product, "fitted_simdgroup_tile", lambda *_: tile)
    code = lowered_call(METAL, [(512, 512), (512, 512)], relax.op.matmul, [dtype] * 2).executable
    text = code.content(CodeFormat.MSL).decode()
    products = tile.group_rows * tile.group_columns // 64
    assert text.count("simdgroup_multiply_accumulate(") == products
    assert f"simdgroup_float8x8 sums[{products}]" in text
    operand = {"float32": "simdgroup_float8x8", "float16": "simdgroup_half8x8"}[dtype]
    assert f"{operand} left[{tile.group_rows // 8}]" in text
    assert tile.threads <= METAL.max_threads
    (kernel,) = code.kernels.values()
    # TVM keeps results where the panels were.
    assert 0 < kernel.shared_bytes <= tile.shared_bytes(DTYPES[dtype]) <= METAL.shared_memory_bytes


def test_small_products_have_small_tiles() -> None:
    rows = [fitted_simdgroup_tile(1, rows, 4096).rows for rows in (2, 16, 4096)]
    assert rows == [8, 16, 64]
