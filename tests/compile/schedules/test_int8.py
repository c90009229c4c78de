from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.compile.targets.target import DotProduct, VectorUnit
from assay.compile.targets.x86_64_v3 import TARGET as AVX2
from assay.compile.targets.x86_64_v4_vnni import TARGET as VNNI
from assay.compile.tvm_import import import_tvm

tvm = import_tvm()

from tvm import relax, tirx  # noqa: E402

# vpdpbusd may be missing here: its panels and tails run in plain arithmetic.
UNITS = {
    "8 lanes": AVX2.vector_unit,
    "4 lanes": VectorUnit(bits=128, registers=16),
    "widened": VectorUnit(bits=256, registers=16, dot=DotProduct.WIDENED),
}


@pytest.fixture(params=UNITS.values(), ids=UNITS.keys())
def unit(request: pytest.FixtureRequest, needs_avx2: None) -> VectorUnit:
    return request.param  # type: ignore[no-any-return]


def whole_numbers(low: int, high: int, shape: tuple[int, ...], dtype: str) -> Any:
    """Integers in [low, high], the extreme ones often."""
    generator = np.random.default_rng(sum(shape))
    values, chance = generator.integers(low, high + 1, shape), generator.random(shape)
    return np.where(chance < 0.15, low, np.where(chance > 0.85, high, values)).astype(dtype)


def compiled(
    function: Callable[..., Any], x: Any, constants: list[Any], unit: VectorUnit, target: Any = AVX2
) -> Any:
    """The virtual machine's executable of a contraction of ``x`` with constants."""
    from assay.compile.lower import _build_pipeline, llvm_target
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.dispatch import schedule_function

    parameter = relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    builder = relax.BlockBuilder()
    with builder.function("main", [parameter]):
        with builder.dataflow():
            call = builder.call_te(
                function, parameter, *map(relax.const, constants), primfunc_attrs={"op_pattern": 4}
            )
            result = builder.emit_output(call)
        builder.emit_func_output(result)
    transform = relax.transform
    passes = [transform.LegalizeOps(), transform.FuseOps(), transform.FuseTIR()]
    module = tvm.transform.Sequential(passes)(builder.get())
    for variable, kernel in list(module.functions.items()):
        if isinstance(kernel, tirx.PrimFunc):
            module.update_func(variable, schedule_function(kernel, ScheduleContext(unit=unit)))
    return tvm.compile(module, target=llvm_target(target), relax_pipeline=_build_pipeline(tvm))


def run(function: Callable[..., Any], x: Any, constants: list[Any], unit: VectorUnit) -> Any:
    machine = relax.VirtualMachine(compiled(function, x, constants, unit), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x)).numpy()


def product(x: Any, weights: Any, unit: VectorUnit, *, ordered: bool, zero: int = 0) -> Any:
    """``x`` times ``weights`` [K, N] by the kernel that the machine's form asks for."""
    from assay.compile.schedules.int8 import (
        integer_matmul,
        ordered_matmul,
        pack_integer_panels,
        step_table,
    )
    from assay.compile.schedules.multiply_add import PairsOf16, QuadsOf8Saturating, integer_form
    from assay.compile.schedules.step_order import order_steps

    form, cols = integer_form(unit, weights.T), weights.shape[1]
    if isinstance(form, PairsOf16):
        weights = weights.astype(np.int16)
    panels = pack_integer_panels(weights, 2 * unit.lanes(), form.depth)
    if ordered:
        assert isinstance(form, QuadsOf8Saturating)
        found = order_steps(panels)
        steps = step_table(found.order)
        assert steps.itemsize == (1 if panels.shape[1] <= 256 else 2)
        return run(
            lambda a, b, at: ordered_matmul(a, b, at, cols=cols, form=form, sizes=found.sizes),
            x, [found.panels, steps], unit,
        )  # fmt: skip
    return run(lambda a, b: integer_matmul(a, b, cols=cols, form=form, zero=zero), x, [panels], unit)


@pytest.mark.parametrize("highest", [64, 127], ids=["7 bits", "8 bits"])
@pytest.mark.parametrize(("rows", "depth", "cols"), [(1, 1, 1), (5, 7, 17), (13, 66, 40)], ids=str)
def test_product(unit: VectorUnit, rows: int, depth: int, cols: int, highest: int) -> None:
    x = whole_numbers(0, 255, (rows, depth), "uint8")
    weights = whole_numbers(-highest, highest, (depth, cols), "int8")
    expected = x.astype(np.int32) @ weights.astype(np.int32)
    np.testing.assert_array_equal(product(x, weights, unit, ordered=False), expected)


@pytest.mark.parametrize("highest", [20, 64], ids=["small weights", "7 bits"])
def test_product_that_adds_in_16_bits(needs_avx2: None, highest: int) -> None:
    """Every activation is the largest, and many weights too: any sum that could saturate would."""
    x = np.full((9, 84), 255, np.uint8)
    weights = whole_numbers(-highest, highest, (84, 50), "int8")
    expected = x.astype(np.int32) @ weights.astype(np.int32)
    np.testing.assert_array_equal(product(x, weights, AVX2.vector_unit, ordered=True), expected)


@pytest.mark.parametrize("depth", [1024, 1028], ids=["steps of a byte", "steps of two bytes"])
def test_product_with_a_table_of_steps(needs_avx2: None, depth: int) -> None:
    x = whole_numbers(0, 255, (5, depth), "uint8")
    weights = whole_numbers(-30, 30, (depth, 20), "int8")
    expected = x.astype(np.int32) @ weights.astype(np.int32)
    np.testing.assert_array_equal(product(x, weights, AVX2.vector_unit, ordered=True), expected)


def test_16_bits_take_the_zero_point_off(needs_avx2: None) -> None:
    x = whole_numbers(0, 255, (6, 10), "uint8")
    weights = whole_numbers(-128, 127, (10, 9), "int8")
    expected = (x.astype(np.int32) - 131) @ weights.astype(np.int32)
    actual = product(x, weights, AVX2.vector_unit, ordered=False, zero=131)
    np.testing.assert_array_equal(actual, expected)


def reference_convolution(x: Any, filters: Any, geometry: Any, zero: int) -> Any:
    """int32 NHWC convolution of ``x`` padded with ``zero`` by OHWI ``filters``, one tap after the other."""
    top, left, bottom, right = geometry.padding
    wide = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=zero).astype(np.int32)
    height, width = (geometry.output_extent(axis, wide.shape[1 + axis]) for axis in (0, 1))
    groups, (sh, sw), (dh, dw) = geometry.groups, geometry.strides, geometry.dilation
    ins, outs = filters.shape[3], filters.shape[0] // groups
    result = np.zeros((x.shape[0], height, width, filters.shape[0]), np.int32)
    for r in range(geometry.kernel[0]):
        for s in range(geometry.kernel[1]):
            part = wide[:, r * dh : r * dh + sh * height : sh, s * dw : s * dw + sw * width : sw][
                :, :height, :width
            ]
            for g in range(groups):
                taps = filters[g * outs : (g + 1) * outs, r, s].astype(np.int32)
                result[..., g * outs : (g + 1) * outs] += part[..., g * ins : (g + 1) * ins] @ taps.T
    return result


GEOMETRIES = {
    "stem": ((1, 11, 9, 3), 20, {"kernel": (7, 7), "strides": (2, 2), "padding": (3, 3, 3, 3)}),
    "same": ((2, 6, 7, 8), 17, {"kernel": (3, 3), "padding": (1, 1, 1, 1)}),
    "strided": ((1, 9, 8, 12), 24, {"kernel": (1, 1), "strides": (2, 2)}),
    "dilated": ((1, 9, 9, 4), 5, {"kernel": (3, 3), "dilation": (2, 2), "padding": (2, 0, 1, 2)}),
    "odd": ((1, 5, 6, 3), 4, {"kernel": (3, 3)}),
    "groups": ((1, 5, 5, 12), 8, {"kernel": (3, 3), "padding": (1, 1, 1, 1), "groups": 2}),
}


@pytest.mark.parametrize("case", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_convolution(unit: VectorUnit, case: Any) -> None:
    from assay.compile.schedules.conv2d import ConvGeometry
    from assay.compile.schedules.int8 import (
        integer_conv2d,
        ordered_conv2d,
        pack_integer_filters,
        step_offsets,
        step_table,
    )
    from assay.compile.schedules.multiply_add import QuadsOf8Saturating, integer_form
    from assay.compile.schedules.step_order import order_steps

    shape, channels, given = case
    defaults = {"strides": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1}
    geometry = ConvGeometry(**{**defaults, **given})
    x = whole_numbers(0, 255, shape, "uint8")
    filters = whole_numbers(-64, 64, (channels, *geometry.kernel, shape[3] // geometry.groups), "int8")
    expected = reference_convolution(x, filters, geometry, zero=7)
    form = integer_form(unit, filters.reshape(channels, -1))
    panels = pack_integer_filters(filters, geometry, 2 * unit.lanes(), form.depth)
    options = {"geometry": geometry, "channels": channels, "form": form, "zero": 7}
    actual = run(lambda a, b: integer_conv2d(a, b, **options), x, [panels], unit)
    np.testing.assert_array_equal(actual, expected)
    starts = step_offsets(geometry, shape[2], shape[3], form.depth)
    assert (starts is None) == (geometry.groups > 1 or case is GEOMETRIES["odd"])
    if starts is not None and isinstance(form, QuadsOf8Saturating):
        found = order_steps(panels)
        actual = run(
            lambda a, b, at: ordered_conv2d(a, b, at, sizes=found.sizes, **options),
            x, [found.panels, step_table(starts[found.order])], unit,
        )  # fmt: skip
        np.testing.assert_array_equal(actual, expected)


def minimal_filters(filters: Any, width: int, tiles: int, panels: int) -> tuple[Any, Any]:
    """A plan of F(2x2, 3x3), and OHWI ``filters`` packed for it, if their sums provably fit."""
    from assay.compile.schedules.conv_plan import ConvAlgorithm, ConvPlan
    from assay.compile.schedules.winograd import pack_integer_winograd_filters

    plan = ConvPlan(algorithm=ConvAlgorithm.WINOGRAD2, panel_width=width, tiles=tiles, panels=panels)
    return plan, pack_integer_winograd_filters(filters, plan)


@pytest.mark.parametrize("zero", [0, 131])
@pytest.mark.parametrize(
    ("shape", "channels", "padding", "tiles", "panels"),
    [
        ((1, 9, 11, 13), 24, (1, 1, 1, 1), 7, 1),
        ((2, 8, 8, 32), 37, (1, 0, 2, 1), 3, 3),
        ((1, 3, 17, 5), 9, (0, 0, 0, 0), 2, 1),
        ((1, 6, 1, 8), 16, (2, 1, 0, 2), 1, 1),
    ],
    ids=str,
)
def test_minimal_filtering_is_exact(
    needs_avx2: None, shape: Any, channels: int, padding: Any, tiles: int, panels: int, zero: int
) -> None:
    """Activations and weights are the extreme ones often."""
    from assay.compile.schedules.conv2d import ConvGeometry
    from assay.compile.schedules.winograd import integer_winograd_conv2d

    geometry = ConvGeometry(kernel=(3, 3), strides=(1, 1), dilation=(1, 1), padding=padding, groups=1)
    x = whole_numbers(0, 255, shape, "uint8")
    filters = whole_numbers(-128, 127, (channels, 3, 3, shape[3]), "int8")
    expected = reference_convolution(x, filters, geometry, zero)
    expected -= zero * filters.sum((1, 2, 3), dtype=np.int32)
    for unit in (UNITS["8 lanes"], UNITS["4 lanes"]):
        plan, packed = minimal_filters(filters, 16, tiles, panels)
        options = {"geometry": geometry, "channels": channels, "plan": plan, "zero": zero}
        actual = run(lambda a, b, o=options: integer_winograd_conv2d(a, b, **o), x, [packed], unit)
        np.testing.assert_array_equal(actual, expected)


def test_minimal_filtering_is_left_where_a_sum_could_overflow() -> None:
    assert minimal_filters(np.full((8, 3, 3, 64), 127, np.int8), 8, 4, 1)[1] is not None
    assert minimal_filters(np.full((8, 3, 3, 512), 127, np.int8), 8, 4, 1)[1] is None
    assert minimal_filters(np.full((8, 3, 3, 1), 4000, np.int16), 8, 4, 1)[1] is None


def test_minimal_filtering_multiplies_without_spills(needs_avx2: None) -> None:
    from assay.compile.schedules.conv2d import ConvGeometry
    from assay.compile.schedules.winograd import integer_winograd_conv2d

    geometry = ConvGeometry(kernel=(3, 3), strides=(1, 1), dilation=(1, 1), padding=(1, 1, 1, 1), groups=1)
    plan, packed = minimal_filters(whole_numbers(-9, 9, (32, 3, 3, 64), "int8"), 16, 42, 2)
    executable = compiled(
        lambda a, b: integer_winograd_conv2d(a, b, geometry=geometry, channels=32, plan=plan, zero=0),
        np.zeros((1, 28, 28, 64), np.uint8), [packed], AVX2.vector_unit,
    )  # fmt: skip
    body = inner_loop(assembly(executable), "vpmaddwd")
    assert sum("vpmaddwd" in line for line in body) >= 12
    assert not [line for line in body if "rsp" in line]


def test_vnni_multiplies_in_zmm_without_spills() -> None:
    """The inner loop of the kernel for AVX-512 VNNI, which this test does not run."""
    from assay.compile.schedules.int8 import integer_matmul, pack_integer_panels
    from assay.compile.schedules.multiply_add import QuadsOf8, integer_form

    weights = whole_numbers(-127, 127, (256, 64), "int8")
    form = integer_form(VNNI.vector_unit, weights.T)
    assert isinstance(form, QuadsOf8)
    panels = pack_integer_panels(weights, 32, form.depth)
    x = np.zeros((48, 256), np.uint8)
    executable = compiled(
        lambda a, b: integer_matmul(a, b, cols=64, form=form, zero=0), x, [panels], VNNI.vector_unit, VNNI
    )
    body = inner_loop(assembly(executable), "vpdpbusd")
    products = [line for line in body if "vpdpbusd" in line]
    assert len(products) >= 16
    assert all("%zmm" in line for line in products)
    assert not [line for line in body if "rsp" in line]


def test_avx2_adds_in_16_bits_before_it_widens(needs_avx2: None) -> None:
    from assay.compile.schedules.int8 import ordered_matmul, pack_integer_panels
    from assay.compile.schedules.multiply_add import QuadsOf8Saturating
    from assay.compile.schedules.step_order import order_steps

    form = QuadsOf8Saturating()
    found = order_steps(pack_integer_panels(whole_numbers(-20, 20, (256, 32), "int8"), 16, form.depth))
    x = np.zeros((48, 256), np.uint8)
    executable = compiled(
        lambda a, b, at: ordered_matmul(a, b, at, cols=32, form=form, sizes=found.sizes),
        x, [found.panels, found.order], AVX2.vector_unit,
    )  # fmt: skip
    body = inner_loop(assembly(executable), "vpmaddubsw")
    narrow, wide = (sum(name in line for line in body) for name in ("vpmaddubsw", "vpmaddwd"))
    assert narrow >= 2 * wide > 0


def assembly(executable: Any) -> list[str]:
    def find(module: Any) -> Any:
        return module if module.kind == "llvm" else next(found for i in module.imports if (found := find(i)))

    return str(find(executable.mod).inspect_source("asm")).splitlines()


def inner_loop(lines: list[str], instruction: str) -> list[str]:
    """The body of the first loop that has the instruction: from its label to the jump back."""
    first = next(i for i, line in enumerate(lines) if instruction in line)
    start = max(i for i in range(first) if lines[i].startswith(".LBB"))
    label = lines[start].partition(":")[0]
    end = next(i for i in range(first, len(lines)) if lines[i].split()[-1:] == [label])
    return lines[start : end + 1]
