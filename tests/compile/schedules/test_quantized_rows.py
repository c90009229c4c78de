from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.compile.schedules.test_block_matmul import UNITS, quantized

from assay.compile.schedules.block_format import ActivationFormat
from assay.compile.schedules.quantized_rows import GatedRows, NormedRows, RowSource
from assay.compile.targets.target import VectorUnit
from assay.compile.targets.x86_64_v2 import TARGET as SSE
from assay.compile.targets.x86_64_v3 import TARGET as AVX2


def run(source: RowSource, form: ActivationFormat, unit: VectorUnit, *arrays: Any) -> Any:
    """The kernel's rows, int8 ``[rows, row_bytes]``."""
    from assay.compile.lower import llvm_target
    from assay.compile.schedules.block_quantize import quantize_function
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.tvm_import import import_tvm

    tvm = import_tvm()
    rows = tvm.tirx.Var("rows", "int64")
    kernel = quantize_function(form, [rows, form.depth], ScheduleContext(unit=unit), source)
    target = llvm_target(SSE if unit is SSE.vector_unit else AVX2)
    entry = tvm.compile(kernel.with_attr("global_symbol", "quantize"), target=target)["quantize"]
    result = tvm.runtime.tensor(np.full((len(arrays[0]), form.row_bytes), 77, np.int8))
    entry(*map(tvm.runtime.tensor, arrays), result)
    return result.numpy()


def check(rows: Any, expected: Any, form: ActivationFormat) -> None:
    """Codes, scales and sums of ``expected`` float32 ``[rows, depth]``; codes may differ where one rounds."""
    codes, scales = quantized(expected, form.block)
    blocks, at = form.blocks, form.codes
    found = rows[:, :at].reshape(len(rows), blocks, form.block)
    near = np.abs(found.astype(int) - codes)
    assert near.max() <= 1
    assert near.mean() < 1e-3
    words = np.ascontiguousarray(rows[:, at:])
    np.testing.assert_allclose(words[:, : 4 * blocks].copy().view(np.float32), scales, rtol=1e-5, atol=1e-9)
    sums = words[:, 8 * blocks : 12 * blocks].copy().view(np.int32)
    np.testing.assert_array_equal(sums, found.sum(-1, dtype=np.int32))
    scaled = words[:, 4 * blocks : 8 * blocks].copy().view(np.float32)
    np.testing.assert_allclose(scaled, sums * scales, rtol=1e-5, atol=1e-7)
    assert (words[:, 12 * blocks :].copy().view(np.int32) == form.quads).all()


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize(("rows", "depth", "block"), [(1, 576, 32), (70, 200, 64), (3, 41, 16)])
def test_rms_norm_on_the_way(tvm, needs_avx2, unit, rows, depth, block):
    generator = np.random.default_rng(depth)
    x = (generator.standard_normal((rows, depth)) * 3).astype(np.float32)
    weight = generator.standard_normal(depth).astype(np.float32)
    x[-1] = 0
    form = ActivationFormat(block=block, depth=depth)
    mean = np.mean(x.astype(np.float64) ** 2, -1, keepdims=True)
    expected = (x / np.sqrt(mean + 1e-5) * weight).astype(np.float32)
    check(run(NormedRows(epsilon=1e-5), form, unit, x, weight), expected, form)


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize(("rows", "depth", "block"), [(1, 1536, 32), (70, 200, 64), (3, 41, 16)])
def test_gates_on_the_way(tvm, needs_avx2, unit, rows, depth, block):
    x = (np.random.default_rng(depth).standard_normal((rows, 2 * depth)) * 4).astype(np.float32)
    form = ActivationFormat(block=block, depth=depth)
    gate, up = x[:, :depth].astype(np.float64), x[:, depth:]
    expected = (gate / (1 + np.exp(-gate)) * up).astype(np.float32)
    check(run(GatedRows(), form, unit, x), expected, form)
