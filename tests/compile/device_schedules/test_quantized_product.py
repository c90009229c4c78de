"""Products and tables of block-quantized weights on devices that the CPU plays, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm import relax, te, tirx

from assay.compile.device_schedules.quantized_weights import block_rows, word_weights
from assay.compile.device_schedules.row_tile import row_tile
from assay.compile.schedules.block_problem import MATMUL, BlockCall
from assay.compile.targets import gpu_targets
from assay.runtime.bound_plan import bind

from .conftest import lowered_call

Array = npt.NDArray[Any]
OnDevice = Callable[..., Callable[..., Array]]

# Outputs, K, bits, block, whether there are zero points, and a bias.
CASES = [
    pytest.param((37, 71, 8, 32, False, False), id="8 bits"),
    pytest.param((40, 96, 4, 32, True, True), id="4 bits", marks=pytest.mark.slow),
    pytest.param((5, 20, 4, 16, True, False), id="small", marks=pytest.mark.slow),
    # So wide that products of 13 and of 20 rows have different tiles on Metal.
    pytest.param((256, 32, 4, 32, True, False), id="wide", marks=pytest.mark.slow),
]
ROWS = (1, 3, 13, 20)
EPSILON = 0.25


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Operands of a BlockCall, and the numbers [rows, columns] that they stand for."""

    call: BlockCall
    operands: list[Array]
    numbers: Array

    @staticmethod
    def random(rows: int, columns: int, bits: int, block: int, zeros: bool, bias: bool) -> Weights:
        generator, blocks = np.random.default_rng(rows + columns), -(-columns // block)
        codes = generator.integers(0, 1 << bits, (rows, blocks * block)).astype(np.uint8)
        codes[0], codes[-1] = (1 << bits) - 1, 0
        scales = (generator.random((rows, blocks)) * 0.02 + 0.001).astype(np.float32)
        points = np.full((rows, blocks), 1 << (bits - 1), np.float32)
        if zeros:
            points = (generator.standard_normal((rows, blocks)) * 3 + 7).astype(np.float32)
        centred = codes.reshape(rows, blocks, block).astype(np.float64) - points[..., None]
        numbers = (centred * scales[..., None]).reshape(rows, -1)[:, :columns]
        packed = codes if bits == 8 else codes[:, ::2] | codes[:, 1::2] << 4
        operands = [packed.reshape(rows, blocks, -1), scales]
        operands += [points] if zeros else []
        operands += [generator.standard_normal(rows).astype(np.float32)] if bias else []
        call = BlockCall(
            bits=bits, block=block, rows=rows, columns=columns, has_zero_points=zeros, has_bias=bias
        )
        return Weights(call=call, operands=operands, numbers=numbers)

    def product(self, x: Any, other: Any) -> Any:
        """The sum of the product and of ``other``, as Relax."""
        shape = [*list(x.ty.shape)[:-1], self.call.rows]
        operands = [x, *map(relax.const, self.operands)]
        kind = relax.TensorType(shape, "float32")
        product = relax.call_dps_packed(MATMUL + self.call.to_text(), operands, out_ty=kind)
        return relax.op.add(product, other)

    @property
    def gain(self) -> Array:
        """Factors of the elements of a row behind an RMS norm."""
        return np.linspace(-2, 3, self.call.columns).astype(np.float32)

    def normed_product(self, x: Any, other: Any) -> Any:
        """The same of the norms of the rows of x."""
        norm = relax.op.nn.rms_norm(x, relax.const(self.gain), axes=[-1], epsilon=EPSILON)
        builder = relax.BlockBuilder.current()
        return self.product(builder.emit(norm), other)

    def gated_product(self, x: Any) -> Any:
        """Of the product of the norms of the rows of x, SiLU of one half times the other, as Relax."""
        builder = relax.BlockBuilder.current()
        normed = builder.emit(relax.op.nn.rms_norm(x, relax.const(self.gain), axes=[-1], epsilon=EPSILON))
        shape = [*list(x.ty.shape)[:-1], self.call.rows]
        kind = relax.TensorType(shape, "float32")
        operands = [normed, *map(relax.const, self.operands)]
        product = builder.emit(relax.call_dps_packed(MATMUL + self.call.to_text(), operands, out_ty=kind))
        halves = builder.emit(relax.op.split(product, 2, axis=-1))
        gate, up = (builder.emit(relax.TupleGetItem(halves, i)) for i in range(2))
        silu = builder.emit(relax.op.multiply(gate, builder.emit(relax.op.sigmoid(gate))))
        return relax.op.multiply(silu, up)

    def gated(self, x: Array) -> Array:
        """What ``gated_product`` is."""
        product = self.expected(self.normed(x), np.zeros(1))
        gate, up = np.split(product, 2, axis=-1)
        return np.asarray(gate / (1 + np.exp(-gate)) * up)

    def normed(self, x: Array) -> Array:
        """RMS norms of the rows of x."""
        wide = x.astype(np.float64)
        root = np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + EPSILON)
        return np.asarray(wide / root * self.gain)

    def expected(self, x: Array, other: Array) -> Array:
        bias = self.operands[-1] if self.call.has_bias else 0
        return np.asarray(x.astype(np.float64) @ self.numbers.T + bias + other)


def check_all_rows(on: OnDevice, weights: Weights, *, normed: bool = False) -> None:
    """The product of any number of rows, and that of one, against NumPy."""
    product = weights.normed_product if normed else weights.product
    outputs, columns = weights.call.rows, weights.call.columns
    count = tirx.Var("count", "int64")
    run = on([(1, count, columns), (1, count, outputs)], product)
    one = on([(1, 1, columns), (1, 1, outputs)], product)
    generator = np.random.default_rng(1)
    for rows in ROWS:
        x = generator.standard_normal((1, rows, columns)).astype(np.float32)
        other = generator.standard_normal((1, rows, outputs)).astype(np.float32)
        expected = weights.expected(weights.normed(x) if normed else x, other)
        np.testing.assert_allclose(run(x, other), expected, rtol=1e-5, atol=5e-5)
        if rows == 1:
            np.testing.assert_allclose(one(x, other), expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("case", CASES)
def test_rows_of_any_number(on_device: OnDevice, case: Any) -> None:
    check_all_rows(on_device, Weights.random(*case))


@pytest.mark.parametrize("case", CASES)
def test_from_source_on_the_cpu(on_emulated: OnDevice, case: Any) -> None:
    check_all_rows(on_emulated, Weights.random(*case))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((5, 20, 4, 16, True, False), id="small"),
        pytest.param((37, 71, 8, 32, False, False), id="8 bits", marks=pytest.mark.slow),
        pytest.param((40, 96, 4, 32, True, True), id="4 bits", marks=pytest.mark.slow),
    ],
)
def test_norms_before(on_device: OnDevice, case: Any) -> None:
    check_all_rows(on_device, Weights.random(*case), normed=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", [(37, 71, 8, 32, False, False), (40, 96, 4, 32, True, True)], ids=str)
def test_norms_before_from_source_on_the_cpu(on_emulated: OnDevice, case: Any) -> None:
    check_all_rows(on_emulated, Weights.random(*case), normed=True)


def check_gates(on: OnDevice, weights: Weights) -> None:
    """The gate of the product of any number of rows, and that of one, against NumPy."""
    columns, count = weights.call.columns, tirx.Var("count", "int64")
    run = on([(1, count, columns)], weights.gated_product)
    one = on([(1, 1, columns)], weights.gated_product)
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((1, rows, columns)).astype(np.float32)
        for found in [run(x), one(x)] if rows == 1 else [run(x)]:
            np.testing.assert_allclose(found, weights.gated(x), rtol=2e-5, atol=5e-5)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((32, 20, 4, 16, True, False), id="small"),
        pytest.param((96, 71, 8, 32, False, False), id="8 bits", marks=pytest.mark.slow),
    ],
)
def test_gates_behind(on_device: OnDevice, case: Any) -> None:
    check_gates(on_device, Weights.random(*case))


@pytest.mark.slow
def test_gates_behind_from_source_on_the_cpu(on_emulated: OnDevice) -> None:
    check_gates(on_emulated, Weights.random(96, 71, 8, 32, False, False))


@pytest.mark.parametrize("case", [(40, 96, 4, 32, True, False), (37, 71, 8, 32, False, False)], ids=str)
def test_rows_of_a_table(tvm: Any, case: Any) -> None:
    weights = Weights.random(*case)
    chosen = np.array([[0, weights.call.rows - 1, 2, 2]], np.int32)
    arrays = [chosen, *word_weights(weights.call, *weights.operands)]
    tensors = [te.placeholder(array.shape, str(array.dtype)) for array in arrays]
    rows = block_rows(weights.call, *tensors)
    library = tvm.compile(te.create_prim_func([*tensors, rows]), target="llvm")
    found = tvm.runtime.tensor(np.zeros((1, 4, weights.call.columns), np.float32))
    library(*map(tvm.runtime.tensor, arrays), found)
    np.testing.assert_allclose(found.numpy(), weights.numbers[chosen], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["opencl", "vulkan", "cuda-sm_80", "rocm-gfx90a", "metal"])
@pytest.mark.parametrize("what", ["product", "normed_product", "gated_product"])
def test_few_rows_are_one_launch(target: str, what: str) -> None:
    gated = what == "gated_product"
    weights = Weights.random(64, 96, 4, 32, True, not gated)
    chosen, columns = gpu_targets()[target], [96] if gated else [96, 64]

    def shapes(rows: Any) -> list[tuple[Any, ...]]:
        return [(1, rows, each) for each in columns]

    form = lowered_call(chosen, shapes(tirx.Var("count", "int64")), getattr(weights, what))
    for rows in (1, 2, row_tile(chosen.api).most_rows):
        bound = bind(form.plan, shapes(rows))
        assert sum(0 not in step.grid for step in bound.steps) == 1
    bound = bind(form.plan, shapes(64))
    assert sum(0 not in step.grid for step in bound.steps) > 1


@pytest.mark.parametrize("target", ["cuda-sm_80", "metal"])
def test_each_number_of_rows_has_one_product(target: str) -> None:
    weights, count = Weights.random(1536, 32, 8, 32, False, False), tirx.Var("count", "int64")
    form = lowered_call(gpu_targets()[target], [(1, count, 32), (1, count, 1536)], weights.product)
    launched = []
    for rows in (1, 3, 13, 64):
        bound = bind(form.plan, ((1, rows, 32), (1, rows, 1536)))
        launched.append([step.kernel for step in bound.steps if 0 not in step.grid])
    one, few, some, many = launched
    assert len(one) == len(few) == 1
    assert len(some) == len(many) > 1
    assert len({one[0], few[0], some[-1], many[-1]}) == 4
