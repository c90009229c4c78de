"""Attention over a paged cache on devices that the CPU plays, beside NumPy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.emulation.gpu.device import EmulatedDevice
from assay.compile.emulation.gpu.execution import emulated_form
from assay.compile.targets import gpu_targets
from assay.compile.targets.gpu_target import GpuTarget
from assay.runtime.bound_plan import bind
from assay.runtime.devices import find_devices, open_device
from assay.runtime.devices.device import Device
from assay.runtime.drivers.plan_device import DeviceCalls

# (past, new) tokens of the sequences of a call, and the window.
CALLS: list[tuple[list[tuple[int, int]], int | None]] = [
    ([(0, 1), (31, 1), (100, 1)], None),
    ([(0, 1), (1, 3), (31, 2), (33, 1), (0, 0), (0, 40)], None),
    ([(64, 10), (90, 1)], 33),
    ([(30, 5), (70, 2), (0, 1)], 33),
]


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    path = Path(__file__).parents[1] / "schedules" / "paged_cases.py"
    spec = importlib.util.spec_from_file_location("device_paged_cases", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(problem: Any, place: Any, target: GpuTarget) -> Any:
    """One call of the kernel, compiled."""
    from tvm import relax

    from assay.compile.lower_device import lower_device
    from assay.compile.passes.paged_cache import PREFIX
    from assay.compile.profiles import profiles
    from assay.compile.schedules.paged_problem import PagedBuffers

    buffers = PagedBuffers.declare(problem)
    used = [each for each in buffers.params()[:-1] if each is not buffers.place]
    builder = relax.BlockBuilder()
    values = [
        relax.Var(each.name, relax.TensorType(list(each.ty.shape), str(each.ty.dtype))) for each in used
    ]
    kind = relax.TensorType(list(buffers.output.ty.shape), "float32")
    with builder.function("main", values):
        with builder.dataflow():
            call = relax.call_dps_packed(PREFIX + problem.to_text(place), values, out_ty=kind)
            result = builder.emit_output(call)
        builder.emit_func_output(result)
    sizes = {"tokens": 64, "sequences": 8, "pages": 64, "table_width": 8}
    profile = profiles()["release"]
    form = lower_device(builder.get(), target=target, profile=profile, sizes=sizes, maxima=sizes)
    assert form.plan is not None
    return form


def check_calls(cases: ModuleType, problem: Any, target: GpuTarget, device: Device) -> None:
    from assay.compile.schedules.paged_problem import Place

    for spans, window in CALLS:
        place = Place(layer=1, window=window)
        form = compiled(problem, place, target)
        call = cases.make_call(problem, place, spans)
        output, cache, scales = cases.reference(problem, place, call)
        del call["place"]
        weights = list(form.weights.values())
        calls = DeviceCalls(form.plan, device, form.executable.files, weights, ["float32"])
        (actual,) = calls.call(list(call.values()))
        exact = problem.cache_dtype == "float32"
        np.testing.assert_allclose(actual, output, atol=3e-6 if exact else 2e-2)
        step = {"float32": 1e-6, "float16": 4e-3, "int8": 1}[problem.cache_dtype]
        np.testing.assert_allclose(call["cache"].astype(np.float32), cache.astype(np.float32), atol=step)
        if scales is not None:
            np.testing.assert_allclose(call["scales"], scales, rtol=1e-6)


@pytest.mark.parametrize(
    ("api", "dtype", "changes"),
    [
        ("opencl", "float32", {"heads": 6}),
        pytest.param(
            "opencl", "int8", {"softcap": 3.0, "rotary_dim": 0, "head_dim": 40}, marks=pytest.mark.slow
        ),
        pytest.param("vulkan", "float32", {"rotary_dim": 8}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_against_numpy(tvm: Any, cases: ModuleType, api: str, dtype: str, changes: dict[str, Any]) -> None:
    if not find_devices()[api].devices:
        pytest.skip(f"needs a device for {api}, such as ci/emulator.sh installs")
    problem = cases.make_problem(cache_dtype=dtype, positions=160, **changes)
    check_calls(cases, problem, gpu_targets()[api], open_device(api))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "reverse"), [("float16", False), ("int8", True)])
def test_from_source_on_the_cpu(
    tvm: Any, cases: ModuleType, tmp_path: Path, dtype: str, reverse: bool
) -> None:
    target = emulated_form(gpu_targets()["cuda-sm_80"])
    assert target is not None
    device = EmulatedDevice(tmp_path, warp_size=target.warp_size, reverse=reverse)
    check_calls(cases, cases.make_problem(cache_dtype=dtype, rotary_dim=8), target, device)


@pytest.mark.parametrize(
    ("target", "few", "many"), [("opencl", 1, 3), ("cuda-sm_80", 1, 3), ("webgpu", 2, 3)]
)
def test_few_rows_are_one_launch(tvm: Any, cases: ModuleType, target: str, few: int, many: int) -> None:
    from assay.compile.schedules.paged_problem import Place

    problem = cases.make_problem()
    form = compiled(problem, Place(layer=0), gpu_targets()[target])
    for spans, expected in (
        ([(40, 1)], few), ([(0, 3), (40, 5)], few), ([(i, 1) for i in range(12)], few), ([(7, 9)], many)
    ):  # fmt: skip
        call = cases.make_call(problem, Place(layer=0), spans)
        del call["place"]
        bound = bind(form.plan, [array.shape for array in call.values()])
        assert sum(0 not in step.grid for step in bound.steps) == expected
