"""One workload as a kernel of its own: code for a choice, inputs, and a reference in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.compile.schedules.choices import Choice, Workload, WorkloadKind
from assay.compile.targets.target import Target, VectorUnit
from assay.compile.tvm_import import import_tvm

__all__ = ["Problem", "build_kernel", "compile_kernel", "make_problem", "panel_width"]

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A workload with numbers: operands A and B as the operator has them, and what must come out.

    ``operands(width)`` gives them as the kernel takes them, B packed into panels of ``width`` columns.
    """

    workload: Workload
    operands: Callable[[int], tuple[Array, Array]]
    expected: Array


def make_problem(workload: Workload, seed: int = 0) -> Problem:
    """Seeded normal operands, and the result in float64 rounded to float32."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return generator.standard_normal(shape, dtype=np.float32)

    size = workload.sizes
    if workload.kind is WorkloadKind.CONV2D:
        return _convolution(workload, normal)
    if workload.kind is WorkloadKind.BATCHED_MATMUL:
        a = normal(size["groups"], size["rows"], size["depth"])
        b = normal(size["groups"], size["depth"], size["cols"])
        return Problem(workload=workload, operands=lambda width: (a, b), expected=_matmul(a, b))
    from assay.compile.schedules.gemm import pack_panels

    a, b = normal(size["rows"], size["depth"]), normal(size["depth"], size["cols"])
    return Problem(
        workload=workload,
        operands=lambda width: (a, pack_panels(b, width)),
        expected=_matmul(a, b),
    )


def _matmul(a: Array, b: Array) -> Array:
    product: Array = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    return product


def _convolution(workload: Workload, normal: Callable[..., Array]) -> Problem:
    """NHWC input without padding around it, OHWI filters; the reference is a matrix product over windows."""
    from assay.compile.schedules.conv2d import pack_filters

    size = workload.sizes
    groups, inputs, outputs = size["groups"], size["inputs"], size["outputs"]
    reach = [(size[f"kernel_{axis}"] - 1) * size[f"dilation_{axis}"] + 1 for axis in "hw"]
    extent = [
        (size[name] - 1) * size[f"stride_{axis}"] + span
        for name, axis, span in zip(("height", "width"), "hw", reach, strict=True)
    ]
    x = normal(size["batch"], *extent, inputs)
    filters = normal(outputs, size["kernel_h"], size["kernel_w"], inputs // groups)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), reach, axis=(1, 2))
    windows = windows[
        :, :: size["stride_h"], :: size["stride_w"], :, :: size["dilation_h"], :: size["dilation_w"]
    ]
    split = windows.reshape(*windows.shape[:3], groups, inputs // groups, *windows.shape[4:])
    by_group = filters.astype(np.float64).reshape(groups, outputs // groups, *filters.shape[1:])
    expected = np.einsum("nhwgiab,goabi->nhwgo", split, by_group, optimize=True)
    return Problem(
        workload=workload,
        operands=lambda width: (x, pack_filters(filters, groups, width)),
        expected=expected.reshape(*expected.shape[:3], outputs).astype(np.float32),
    )


def panel_width(workload: Workload, choice: Choice, unit: VectorUnit) -> int:
    """NR of ``choice``, or what arithmetic makes of it."""
    from assay.compile.tune.space import space_of

    width = choice.panel_width or space_of(workload, unit, 1).analytic.panel_width
    assert width is not None
    return width


def build_kernel(workload: Workload, choice: Choice, target: Target) -> Callable[..., None]:
    """Machine code of the workload under ``choice``: a function of A, B (packed) and the output.

    Raises whatever the compiler raises for a choice that it cannot do.
    """
    entry: Callable[..., None] = compile_kernel(workload, choice, target)["kernel"]
    return entry


def compile_kernel(workload: Workload, choice: Choice, target: Target) -> Any:
    """What ``build_kernel`` gives, as TVM's executable, which can be exported for another machine."""
    tvm = import_tvm()
    from assay.compile.lower import llvm_target
    from assay.compile.schedules.choices import Tuning
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.dispatch import schedule_function

    width = panel_width(workload, choice, target.vector_unit)
    tuning = Tuning(choices={workload.key: choice})
    context = ScheduleContext(unit=target.vector_unit, tuning=tuning)
    function = tvm.te.create_prim_func(_definition(workload, width))
    function = schedule_function(function.with_attr("tirx.noalias", True), context)
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return tvm.compile(module, target=llvm_target(target))


def _definition(workload: Workload, width: int) -> Sequence[Any]:
    """The tensors of the workload's tensor expression: A, B, output."""
    from tvm import te

    from assay.compile.schedules.conv2d import ConvGeometry, conv2d
    from assay.compile.schedules.gemm import batched_matmul, packed_matmul

    size = workload.sizes
    if workload.kind is WorkloadKind.PACKED_MATMUL:
        a = te.placeholder((size["rows"], size["depth"]), "float32", name="a")
        b = te.placeholder((-(-size["cols"] // width), size["depth"], width), "float32", name="b")
        return a, b, packed_matmul(a, b, size["cols"])
    if workload.kind is WorkloadKind.BATCHED_MATMUL:
        a = te.placeholder((size["groups"], size["rows"], size["depth"]), "float32", name="a")
        b = te.placeholder((size["groups"], size["depth"], size["cols"]), "float32", name="b")
        return a, b, batched_matmul(a, b, transpose_b=False)
    problem_shape = [
        (size[name] - 1) * size[f"stride_{axis}"]
        + (size[f"kernel_{axis}"] - 1) * size[f"dilation_{axis}"]
        + 1
        for name, axis in (("height", "h"), ("width", "w"))
    ]
    x = te.placeholder((size["batch"], *problem_shape, size["inputs"]), "float32", name="a")
    taps = size["kernel_h"] * size["kernel_w"] * size["inputs"] // size["groups"]
    panels = size["groups"] * -(-(size["outputs"] // size["groups"]) // width)
    b = te.placeholder((panels, taps, width), "float32", name="b")
    geometry = ConvGeometry(
        kernel=(size["kernel_h"], size["kernel_w"]),
        strides=(size["stride_h"], size["stride_w"]),
        dilation=(size["dilation_h"], size["dilation_w"]),
        padding=(0, 0, 0, 0),
        groups=size["groups"],
    )
    return x, b, conv2d(x, b, geometry, size["outputs"])
