from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from assay.compile.schedules.block_format import BlockWeights, pack_blocks, plan_format
from assay.compile.targets.target import DotProduct, VectorUnit
from assay.compile.targets.x86_64_v2 import TARGET as SSE
from assay.compile.targets.x86_64_v3 import TARGET as AVX2
from assay.compile.targets.x86_64_v4_vnni import TARGET as VNNI

# What the machine of the tests runs, the width of AVX-512 in plain arithmetic, and the form for SSE.
UNITS = {
    "8 lanes": AVX2.vector_unit,
    "4 lanes": SSE.vector_unit,
    "16 lanes": VectorUnit(bits=512, registers=32, dot=DotProduct.WIDENED),
}


def make_weights(
    rows: int, columns: int, bits: int, block: int, zeros: str, scale: str = "half"
) -> BlockWeights:
    """Random weights; ``zeros``: none, same, whole, minimum (what float16 minimums give) or real."""
    generator = np.random.default_rng(rows * columns + bits)
    shape = (rows, -(-columns // block))
    scales = (generator.random(shape) * 0.02 + 0.001).astype(np.float32)
    if scale == "half":
        scales = scales.astype(np.float16).astype(np.float32)
    codes = generator.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    codes[0], codes[-1] = (1 << bits) - 1, 0
    points: Any = None
    if zeros == "same":
        points = np.full(shape, 3, np.float32)
    elif zeros == "whole":
        points = generator.integers(0, 1 << bits, shape).astype(np.float32)
    elif zeros == "minimum":
        points = (generator.standard_normal(shape) * 0.1).astype(np.float16).astype(np.float32) / scales
    elif zeros == "real":
        points = (generator.standard_normal(shape) * 3).astype(np.float32)
    return BlockWeights(bits=bits, block=block, codes=codes, scales=scales, zero_points=points)


def blocks_of(array: Any, block: int) -> Any:
    """``[rows, K]`` as ``[rows, blocks, block]``, zeros behind the last K."""
    rows, columns = array.shape
    wide = np.zeros((rows, -(-columns // block) * block), array.dtype)
    wide[:, :columns] = array
    return wide.reshape(rows, -1, block)


def quantized(x: Any, block: int) -> tuple[Any, Any]:
    """int8 codes ``[rows, blocks, block]`` and float32 scales ``[rows, blocks]`` of activations."""
    parts = blocks_of(x, block)
    largest = np.abs(parts).max(-1)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    return np.rint(parts * inverse[..., None]).astype(np.int8), largest / np.float32(127)


def reference(x: Any, weights: BlockWeights) -> Any:
    """The product with quantized activations: integer sums of blocks, the rest in float64."""
    q, scales = quantized(x, weights.block)
    codes = blocks_of(weights.codes, weights.block)
    sums = np.einsum("mbk,nbk->mnb", q.astype(np.int64), codes.astype(np.int64))
    points = (
        1 << (weights.bits - 1) if weights.zero_points is None else weights.zero_points.astype(np.float64)
    )
    real = sums - points * q.astype(np.int64).sum(-1)[:, None, :]
    return np.einsum("mnb,mb,nb->mn", real, scales.astype(np.float64), weights.scales.astype(np.float64))


def build(weights: BlockWeights, unit: VectorUnit, target: Any = AVX2, rows: int | None = None) -> Any:
    """The executable of ``main(x, packed)``, for any rows or for so many, and the packed weights."""
    from assay.compile.lower import _NEEDLESS, _build_pipeline, llvm_target
    from assay.compile.schedules.block_quantize import quantize_function
    from assay.compile.schedules.block_values import block_matmul
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.dispatch import schedule_function
    from assay.compile.schedules.recurrent_kernel import SCHEDULED
    from assay.compile.tvm_import import import_tvm

    tvm = import_tvm()
    from tvm import relax, tirx

    context = ScheduleContext(unit=unit, sizes={"rows": 16})
    form = plan_format(weights, unit.lanes())
    packed = pack_blocks(weights, form)
    count = tirx.Var("rows", "int64") if rows is None else rows
    shape = [count, weights.codes.shape[1]]
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    constants = relax.Var("packed", relax.TensorType(packed.shape, "uint8"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, constants]):
        with builder.dataflow():
            kernel = builder.add_func(quantize_function(form.activations, shape, context), "block_quantize")
            kind = relax.TensorType([count, form.activations.row_bytes], "int8")
            q = builder.emit(relax.call_tir(kernel, [x], out_ty=kind))
            product = builder.call_te(
                lambda a, b: block_matmul(a, b, form=form), q, constants, primfunc_attrs={"op_pattern": 4}
            )
            result = builder.emit_output(builder.emit(product))
        builder.emit_func_output(result)
    module = tvm.transform.Sequential(
        [relax.transform.LegalizeOps(), relax.transform.FuseOps(), relax.transform.FuseTIR()]
    )(builder.get())
    for variable, function in list(module.functions.items()):
        if isinstance(function, tirx.PrimFunc) and SCHEDULED not in (function.attrs or {}):
            module.update_func(variable, schedule_function(function, context))
    with tvm.transform.PassContext(disabled_pass=list(_NEEDLESS)):
        executable = tvm.compile(module, target=llvm_target(target), relax_pipeline=_build_pipeline(tvm))
    return executable, packed


def run(executable: Any, *arrays: Any) -> Any:
    """``main`` of arrays."""
    from assay.compile.tvm_import import import_tvm

    tvm = import_tvm()
    from tvm import relax

    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays)).numpy()


# bits, block, zero points, scales, unit. The first few are what models have.
CASES = [
    (4, 32, "minimum", "half", "8 lanes"),
    (4, 32, "none", "half", "8 lanes"),
    (8, 32, "none", "half", "8 lanes"),
    (4, 16, "whole", "full", "8 lanes"),
    (8, 64, "whole", "half", "4 lanes"),
    (4, 128, "real", "full", "16 lanes"),
]
BLOCKS = [
    (16, "none", "4 lanes"),
    (16, "minimum", "16 lanes"),
    (32, "whole", "16 lanes"),
    (32, "same", "8 lanes"),
    (64, "none", "16 lanes"),
    (64, "real", "8 lanes"),
    (128, "none", "8 lanes"),
    (128, "whole", "8 lanes"),
    (128, "minimum", "4 lanes"),
    (256, "none", "8 lanes"),
    (256, "whole", "4 lanes"),
]
MORE = [(bits, block, zeros, "half", unit) for bits in (4, 8) for block, zeros, unit in BLOCKS]


def check(bits: int, block: int, zeros: str, scale: str, unit: str, rows: Any = (1, 2, 5, 8, 9, 23)) -> None:
    """All heights of tiles, with few rows and with many; K and N that do not divide."""
    weights = make_weights(75, 148, bits, block, zeros, scale)
    executable, packed = build(weights, UNITS[unit])
    for count in rows:
        x = np.random.default_rng(count).standard_normal((count, 148)).astype(np.float32)
        x[0, :block] = 0
        expected = reference(x, weights)
        actual = run(executable, x, packed)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("bits", "block", "zeros", "scale", "unit"), CASES)
def test_product(bits: int, block: int, zeros: str, scale: str, unit: str, needs_avx2: None) -> None:
    check(bits, block, zeros, scale, unit)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "block", "zeros", "scale", "unit"), MORE)
def test_more_products(bits: int, block: int, zeros: str, scale: str, unit: str, needs_avx2: None) -> None:
    check(bits, block, zeros, scale, unit)


@pytest.mark.parametrize("rows", [6, 23])
def test_last_panel_with_tiles_of_no_columns(rows: int, needs_avx2: None) -> None:
    """24 columns fill a panel of 16 and half of the next one, whose other half must not be stored."""
    weights = make_weights(24, 96, 8, 32, "none")
    executable, packed = build(weights, UNITS["4 lanes"], rows=rows)
    x = np.random.default_rng(rows).standard_normal((rows, 96)).astype(np.float32)
    expected = reference(x, weights)
    np.testing.assert_allclose(
        run(executable, x, packed), expected, rtol=0, atol=2e-6 * np.abs(expected).max()
    )


@pytest.mark.parametrize(("bits", "block", "zeros"), [(4, 32, "minimum"), (8, 64, "none"), (4, 16, "whole")])
def test_many_rows_over_a_depth_in_cuts(bits: int, block: int, zeros: str, needs_avx2: None) -> None:
    """A spread panel of 1680 K is larger than L1: cuts of K, the last one shorter; chunks of 256 rows."""
    depth, columns = 1680, 40
    weights = make_weights(columns, depth, bits, block, zeros)
    executable, packed = build(weights, UNITS["8 lanes"])
    for rows in (9, 259):
        x = np.random.default_rng(rows).standard_normal((rows, depth)).astype(np.float32)
        expected = reference(x, weights)
        actual = run(executable, x, packed)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


@pytest.mark.parametrize("bits", [4, 8])
def test_integer_sums_are_exact(bits: int, needs_avx2: None) -> None:
    """Activations and scales that keep every number whole, with the largest sums that there are."""
    top = (1 << bits) - 1
    codes = np.array([[top] * 64, [0] * 64, [top, 0] * 32, [0, 0, top, top] * 16], np.uint8).repeat(5, 0)
    weights = BlockWeights(bits=bits, block=32, codes=codes, scales=np.ones((20, 2), np.float32))
    x = np.array(
        [[127.0] * 64, [-127.0] * 64, [127.0, -127.0] * 32, [-127.0, 127.0, 127.0, -127.0] * 16], np.float32
    )
    executable, packed = build(weights, UNITS["8 lanes"])
    exact = x.astype(np.int64) @ (codes.astype(np.int64) - (1 << (bits - 1))).T
    np.testing.assert_array_equal(run(executable, x, packed), exact)
    many = np.tile(x, (4, 1))
    np.testing.assert_array_equal(run(executable, many, packed), np.tile(exact, (4, 1)))


def innermost_loops(source: str) -> list[list[str]]:
    """The bodies of the loops of an assembly listing that have no other inside."""
    lines = source.splitlines()
    labels = {found[1]: i for i, line in enumerate(lines) if (found := re.match(r"(\.LBB\S+):", line))}
    loops = []
    for i, line in enumerate(lines):
        found = re.match(r"\s+j\w+\s+(\.LBB\S+)", line)
        start = labels.get(found[1], i) if found else i
        body = lines[start + 1 : i]
        if start < i and not any(each.startswith(".LBB") for each in body):
            loops.append(body)
    return loops


def assembly(executable: Any) -> str:
    def llvm(module: Any) -> Any:
        if module.kind == "llvm":
            return module
        return next(found for inner in module.imports if (found := llvm(inner)) is not None)

    return str(llvm(executable.mod).inspect_source("asm"))


@pytest.mark.parametrize(("bits", "products"), [(4, 32), (8, 32)])
def test_avx2_reads_one_row_without_spills(bits: int, products: int, needs_avx2: None) -> None:
    """The loop over blocks has all products of four vectors, and keeps its operands in registers."""
    weights = make_weights(64, 128, bits, 32, "minimum" if bits == 4 else "none")
    source = assembly(build(weights, AVX2.vector_unit, rows=1)[0])
    (loop,) = [body for body in innermost_loops(source) if any("vpmaddubsw" in line for line in body)]
    assert sum("vpmaddubsw" in line for line in loop) == products
    assert sum("vpmaddwd" in line for line in loop) == (4 if bits == 4 else products)
    stored = [line for line in loop if re.search(r"vmov\S+\s+%ymm\d+, \S*\(%r[sb]p", line)]
    assert len(stored) <= 2


@pytest.mark.parametrize("bits", [4, 8])
def test_vnni_multiplies_whole_registers(bits: int) -> None:
    source = assembly(build(make_weights(64, 128, bits, 32, "none"), VNNI.vector_unit, VNNI, rows=1)[0])
    loops = [body for body in innermost_loops(source) if any("vpdpbusd" in line for line in body)]
    assert loops
    for loop in loops:
        products = [line for line in loop if "vpdpbusd" in line]
        assert len(products) % 16 == 0
        assert all("%zmm" in line for line in products)
    assert "vpmaddubsw" not in source
