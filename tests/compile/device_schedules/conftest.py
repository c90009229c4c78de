"""Relax modules compiled for a device that the CPU plays, and called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from assay.compile.emulation.gpu.device import EmulatedDevice
from assay.compile.emulation.gpu.execution import emulated_form
from assay.compile.profiles import profiles
from assay.compile.targets import gpu_targets
from assay.compile.targets.gpu_target import GpuTarget
from assay.runtime.devices import find_devices, open_device
from assay.runtime.drivers.plan_device import DeviceCalls

Array = npt.NDArray[Any]


def lowered_call(
    target: GpuTarget,
    shapes: Sequence[Sequence[Any]],
    compute: Callable[..., Any],
    dtypes: Sequence[str] | None = None,
    *,
    others: Collection[str] = ("transpose", "fused_less_transpose"),
    length: int = 64,
) -> Any:
    """``compute`` of Relax variables of ``shapes`` for ``target``, as all models are compiled.

    ``others``: the kernels that may have dlight's default. ``length``: the largest of symbolic extents.
    """
    from tvm import relax

    from assay.compile.lower_device import lower_device

    builder = relax.BlockBuilder()
    dtypes = dtypes or ["float32"] * len(shapes)
    values = [
        relax.Var(f"x{i}", relax.TensorType(list(s), dtype))
        for i, (s, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    ]
    with builder.function("main", values):
        with builder.dataflow():
            output = builder.emit_output(builder.normalize(compute(*values)))
        builder.emit_func_output(output)
    symbols = {str(e.name): length for shape in shapes for e in shape if not isinstance(e, int)}
    form = lower_device(
        builder.get(), target=target, profile=profiles()["release"], sizes=symbols, maxima=symbols
    )
    assert form.plan is not None
    assert set(form.unscheduled) <= set(others), "a kernel that a rule of ours is meant for"
    return form


def _compiled(
    target: str, shapes: Sequence[Sequence[Any]], compute: Callable[..., Any]
) -> Callable[..., Array]:
    form = lowered_call(gpu_targets()[target], shapes, compute)
    weights = list(form.weights.values())
    calls = DeviceCalls(form.plan, open_device(target), form.executable.files, weights, ["float32"])

    def run(*arrays: Array) -> Array:
        (found,) = calls.call([np.ascontiguousarray(array) for array in arrays])
        return found

    return run


def emulated_call(
    name: str,
    folder: Path,
    shapes: Sequence[Sequence[Any]],
    compute: Callable[..., Any],
    dtypes: Sequence[str] | None = None,
) -> Callable[..., Array]:
    """``compute`` for the target ``name``, from source that the CPU runs through headers."""
    target = emulated_form(gpu_targets()[name])
    assert target is not None
    form = lowered_call(target, shapes, compute, dtypes)
    weights, output = list(form.weights.values()), (dtypes or ["float32"])[0]
    both = [
        DeviceCalls(
            form.plan,
            EmulatedDevice(folder, warp_size=target.warp_size, reverse=reverse),
            form.executable.files,
            weights,
            [output],
        )
        for reverse in (False, True)
    ]

    def run(*arrays: Array) -> Array:
        results = [calls.call([np.ascontiguousarray(array) for array in arrays])[0] for calls in both]
        # Threads that are resumed in another order compute the same where no barrier is missing.
        np.testing.assert_array_equal(*results)
        return results[0]

    return run


@pytest.fixture(params=["opencl", "vulkan"])
def on_device(request: pytest.FixtureRequest) -> Callable[..., Callable[..., Array]]:
    """``on_device(shapes, compute)``: ``compute`` of Relax variables as a function that a device runs."""
    target = str(request.param)
    if not find_devices()[target].devices:
        pytest.skip(f"needs a device for {target}, such as ci/emulator.sh installs")
    return lambda *arguments: _compiled(target, *arguments)


@pytest.fixture(params=["cuda-sm_80", "rocm-gfx942", "rocm-gfx1100", "metal"])
def on_emulated(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Callable[..., Array]]:
    """``on_emulated(shapes, compute, dtypes)``: the same from source that the CPU runs through headers."""
    return lambda *arguments: emulated_call(str(request.param), tmp_path, *arguments)
