"""Products and tables of float16 and bfloat16 weights on devices that the CPU plays, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from tvm import relax, te, tirx

from assay.compile.device_schedules.half_weights import half_words, widened_half
from assay.compile.device_schedules.quantized_weights import PANEL
from assay.compile.device_schedules.row_tile import row_tile
from assay.compile.targets import gpu_targets
from assay.runtime.bound_plan import bind

from .conftest import lowered_call

Array = npt.NDArray[Any]
OnDevice = Callable[..., Callable[..., Array]]

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
# Outputs and K: neither whole panels nor whole words; more than a block of K; all of it whole.
CASES = [
    pytest.param((37, 71), id="odd"),
    pytest.param((5, 1), id="small", marks=pytest.mark.slow),
    # So wide that products of 13 and of 20 rows have different tiles on Metal.
    pytest.param((256, 64), id="wide", marks=pytest.mark.slow),
]
ROWS = (1, 3, 13, 20)
EPSILON = 0.25


def every_number(dtype: str) -> Array:
    """All finite numbers of ``dtype`` [256, 248] or fewer a row, but what a float32 may lose as subnormal."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype])
    wide = numbers.astype(np.float32)
    normal = np.isfinite(wide) & ((np.abs(wide) >= np.finfo(np.float32).tiny) | (wide == 0))
    kept = numbers[normal]
    return np.asarray(kept[: len(kept) // 31 * 31].reshape(-1, 31))


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A matrix [outputs, K] of a dtype of 16 bits."""

    stored: Array

    @staticmethod
    def random(dtype: str, outputs: int, steps: int) -> Weight:
        values = np.random.default_rng(outputs + steps).standard_normal((outputs, steps)) * 0.1
        # The least float16, and one below its normal numbers.
        values.flat[:3] = (6e-8, -3e-5, 0.0)
        return Weight(stored=values.astype(DTYPES[dtype]))

    @property
    def wide(self) -> Any:
        """The constant behind a cast and turned, as Relax."""
        cast = relax.op.astype(relax.const(self.stored), "float32")
        return relax.op.permute_dims(relax.BlockBuilder.current().emit(cast))

    def product(self, x: Any, other: Any) -> Any:
        """The product, plus ``other``, as Relax."""
        return relax.op.add(relax.op.matmul(x, self.wide), other)

    @property
    def gain(self) -> Array:
        """Factors of the elements of a row behind an RMS norm."""
        return np.linspace(-2, 3, self.stored.shape[1]).astype(np.float32)

    def _norm(self, x: Any) -> Any:
        norm = relax.op.nn.rms_norm(x, relax.const(self.gain), axes=[-1], epsilon=EPSILON)
        return relax.BlockBuilder.current().emit(norm)

    def normed_product(self, x: Any, other: Any) -> Any:
        """The same of the norms of the rows of x."""
        return self.product(self._norm(x), other)

    def gated_product(self, x: Any) -> Any:
        """Of the product of the norms of the rows of x, SiLU of one half times the other, as Relax."""
        builder = relax.BlockBuilder.current()
        product = builder.emit(relax.op.matmul(self._norm(x), self.wide))
        halves = builder.emit(relax.op.split(product, 2, axis=-1))
        gate, up = (builder.emit(relax.TupleGetItem(halves, i)) for i in range(2))
        silu = builder.emit(relax.op.multiply(gate, builder.emit(relax.op.sigmoid(gate))))
        return relax.op.multiply(silu, up)

    def expected(self, x: Array, other: Array | float = 0.0) -> Array:
        return np.asarray(x.astype(np.float64) @ self.stored.astype(np.float64).T + other)

    def normed(self, x: Array) -> Array:
        """RMS norms of the rows of x."""
        wide = x.astype(np.float64)
        root = np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + EPSILON)
        return np.asarray(wide / root * self.gain)

    def gated(self, x: Array) -> Array:
        """What ``gated_product`` is."""
        gate, up = np.split(self.expected(self.normed(x)), 2, axis=-1)
        return np.asarray(gate / (1 + np.exp(-gate)) * up)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_widened_exactly(tvm: Any, dtype: str) -> None:
    numbers = every_number(dtype)
    words = te.placeholder(half_words(numbers).shape, "int32")
    wide = te.compute(
        numbers.shape,
        lambda n, k: widened_half(dtype, words[n, tirx.floordiv(k, 2)], tirx.floormod(k, 2)),
    )
    library = tvm.compile(te.create_prim_func([words, wide]), target="llvm")
    found = tvm.runtime.tensor(np.zeros(numbers.shape, np.float32))
    library(tvm.runtime.tensor(half_words(numbers)), found)
    np.testing.assert_array_equal(found.numpy(), numbers.astype(np.float32))


def check_all_rows(on: OnDevice, weight: Weight, *, normed: bool = False) -> None:
    """The product of any number of rows, and that of one, against NumPy."""
    compute = weight.normed_product if normed else weight.product
    outputs, steps = weight.stored.shape
    count = tirx.Var("count", "int64")
    run = on([(1, count, steps), (1, count, outputs)], compute)
    one = on([(1, 1, steps), (1, 1, outputs)], compute)
    generator = np.random.default_rng(1)
    for rows in ROWS:
        x = generator.standard_normal((1, rows, steps)).astype(np.float32)
        other = generator.standard_normal((1, rows, outputs)).astype(np.float32)
        expected = weight.expected(weight.normed(x) if normed else x, other)
        for found in [run(x, other), one(x, other)] if rows == 1 else [run(x, other)]:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_rows_of_any_number(on_device: OnDevice, case: tuple[int, int], dtype: str) -> None:
    check_all_rows(on_device, Weight.random(dtype, *case))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_from_source_on_the_cpu(on_emulated: OnDevice, case: tuple[int, int], dtype: str) -> None:
    check_all_rows(on_emulated, Weight.random(dtype, *case))


@pytest.mark.parametrize("case", [(5, 20), pytest.param((37, 71), marks=pytest.mark.slow)], ids=str)
def test_norms_before(on_device: OnDevice, case: tuple[int, int]) -> None:
    check_all_rows(on_device, Weight.random("bfloat16", *case), normed=True)


@pytest.mark.slow
def test_norms_before_from_source_on_the_cpu(on_emulated: OnDevice) -> None:
    check_all_rows(on_emulated, Weight.random("bfloat16", 37, 71), normed=True)


def check_gates(on: OnDevice, weight: Weight) -> None:
    """The gate of the product of any number of rows against NumPy."""
    steps, count = weight.stored.shape[1], tirx.Var("count", "int64")
    run = on([(1, count, steps)], weight.gated_product)
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((1, rows, steps)).astype(np.float32)
        np.testing.assert_allclose(run(x), weight.gated(x), rtol=2e-5, atol=2e-5)


def test_gates_behind(on_device: OnDevice) -> None:
    check_gates(on_device, Weight.random("bfloat16", 64, 38))


@pytest.mark.slow
def test_gates_behind_from_source_on_the_cpu(on_emulated: OnDevice) -> None:
    check_gates(on_emulated, Weight.random("bfloat16", 64, 38))


def rows_of(table: Array) -> Callable[[Any], Any]:
    """Rows of a table at the given indices, float32, widened as the importer has it."""
    from assay.compile.converters.cast import convert_cast

    def compute(indices: Any) -> Any:
        builder = relax.BlockBuilder.current()
        whole = builder.emit(relax.op.astype(indices, "int32"))
        taken = builder.emit(relax.op.take(relax.const(table), whole, 0, mode="clip"))
        return convert_cast(builder, [taken], {"to": 1}, 18)

    return compute


def check_table(on: OnDevice, dtype: str) -> None:
    """Rows of a table of every number, by indices of which one is behind the last."""
    table, count = every_number(dtype), tirx.Var("count", "int64")
    run = on([(count,)], rows_of(table))
    indices = np.array([*range(len(table)), 3, 0, len(table) + 7], np.int32)
    expected = table.astype(np.float32)[indices.clip(0, len(table) - 1)]
    np.testing.assert_array_equal(run(indices.astype(np.float32)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_table(on_device: OnDevice, dtype: str) -> None:
    check_table(on_device, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_table_from_source_on_the_cpu(on_emulated: OnDevice, dtype: str) -> None:
    check_table(on_emulated, dtype)


APIS = ["opencl", "vulkan", "webgpu", "cuda-sm_80", "rocm-gfx90a", "metal"]


@pytest.mark.parametrize("target", APIS)
@pytest.mark.parametrize("what", ["product", "normed_product", "gated_product"])
def test_few_rows_are_one_launch_that_reads_16_bits(target: str, what: str) -> None:
    weight = Weight.random("bfloat16", 64, 95)
    chosen, columns = gpu_targets()[target], [95] if what == "gated_product" else [95, 64]

    def shapes(rows: Any) -> list[tuple[Any, ...]]:
        return [(1, rows, each) for each in columns]

    form = lowered_call(chosen, shapes(tirx.Var("count", "int64")), getattr(weight, what))
    for rows in (1, 2, row_tile(chosen.api).most_rows):
        assert sum(0 not in step.grid for step in bind(form.plan, shapes(rows)).steps) == 1
    matrices = [array for array in form.weights.values() if array.ndim > 1]
    assert [array.dtype.name for array in matrices] == ["int32"]
    assert matrices[0].nbytes == 64 * 96 * 2


@pytest.mark.parametrize("target", APIS)
def test_a_table_that_is_a_weight_too_is_stored_once(target: str) -> None:
    weight = Weight.random("bfloat16", 40, 32)

    def compute(indices: Any) -> Any:
        rows = relax.BlockBuilder.current().emit(rows_of(weight.stored)(indices))
        return relax.op.matmul(rows, weight.wide)

    form = lowered_call(gpu_targets()[target], [(tirx.Var("count", "int64"),)], compute)
    outputs = -(-40 // PANEL) * PANEL
    assert [array.nbytes for array in form.weights.values()] == [outputs * 32 * 2]
