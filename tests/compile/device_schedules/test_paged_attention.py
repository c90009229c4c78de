"""Attention over a paged cache on an OpenCL device, beside NumPy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.targets import gpu_targets
from assay.runtime.devices import find_devices, open_device
from assay.runtime.drivers.plan_device import DeviceCalls
from assay.runtime.plan import Plan

# (past, new) tokens of the sequences of a call, and the window.
CALLS: list[tuple[list[tuple[int, int]], int | None]] = [
    ([(0, 1), (31, 1), (100, 1)], None),
    ([(0, 1), (1, 3), (31, 2), (33, 1), (0, 0), (0, 40)], None),
    ([(64, 10), (90, 1)], 33),
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


def compiled(problem: Any, place: Any) -> tuple[Plan, dict[str, bytes], list[np.ndarray]]:
    """The plan of one call of the kernel, its files and its weights."""
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
    target, profile = gpu_targets()["opencl"], profiles()["release"]
    form = lower_device(builder.get(), target=target, profile=profile, sizes=sizes, maxima=sizes)
    assert form.plan is not None
    return form.plan, form.executable.files, list(form.weights.values())


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [
        ("float32", {"heads": 6}),
        pytest.param("int8", {"softcap": 3.0, "rotary_dim": 0, "head_dim": 40}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_against_numpy(tvm: Any, cases: ModuleType, dtype: str, changes: dict[str, Any]) -> None:
    from assay.compile.schedules.paged_problem import Place

    if not find_devices()["opencl"].devices:
        pytest.skip("needs an OpenCL device, such as ci/emulator.sh installs")
    problem = cases.make_problem(cache_dtype=dtype, positions=160, **changes)
    device = open_device("opencl")
    for spans, window in CALLS:
        place = Place(layer=1, window=window)
        plan, files, weights = compiled(problem, place)
        call = cases.make_call(problem, place, spans)
        output, cache, scales = cases.reference(problem, place, call)
        del call["place"]
        (actual,) = DeviceCalls(plan, device, files, weights, ["float32"]).call(list(call.values()))
        np.testing.assert_allclose(actual, output, atol=2e-2 if scales is not None else 3e-6)
        step = 1 if scales is not None else 1e-6
        np.testing.assert_allclose(call["cache"].astype(np.float32), cache.astype(np.float32), atol=step)
        if scales is not None:
            np.testing.assert_allclose(call["scales"], scales, rtol=1e-6)
