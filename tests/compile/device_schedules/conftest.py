"""Relax modules compiled for a device that the CPU plays, and called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from assay.compile.profiles import profiles
from assay.compile.targets import gpu_targets
from assay.runtime.devices import find_devices, open_device
from assay.runtime.drivers.plan_device import DeviceCalls

Array = npt.NDArray[Any]


def _compiled(
    target: str, shapes: Sequence[Sequence[Any]], compute: Callable[..., Any]
) -> Callable[..., Array]:
    from tvm import relax

    from assay.compile.lower_device import lower_device

    builder = relax.BlockBuilder()
    values = [relax.Var(f"x{i}", relax.TensorType(list(s), "float32")) for i, s in enumerate(shapes)]
    with builder.function("main", values):
        with builder.dataflow():
            output = builder.emit_output(builder.normalize(compute(*values)))
        builder.emit_func_output(output)
    symbols = {str(e.name): 64 for shape in shapes for e in shape if not isinstance(e, int)}
    form = lower_device(
        builder.get(),
        target=gpu_targets()[target],
        profile=profiles()["release"],
        sizes=symbols,
        maxima=symbols,
    )
    assert form.plan is not None
    assert set(form.unscheduled) <= {"transpose"}, "a kernel that a rule of ours is meant for"
    weights = list(form.weights.values())
    calls = DeviceCalls(form.plan, open_device(target), form.executable.files, weights, ["float32"])

    def run(*arrays: Array) -> Array:
        (found,) = calls.call([np.ascontiguousarray(array) for array in arrays])
        return found

    return run


@pytest.fixture(params=["opencl", "vulkan"])
def on_device(request: pytest.FixtureRequest) -> Callable[..., Callable[..., Array]]:
    """``on_device(shapes, compute)``: ``compute`` of Relax variables as a function that a device runs."""
    target = str(request.param)
    if not find_devices()[target].devices:
        pytest.skip(f"needs a device for {target}, such as ci/emulator.sh installs")
    return lambda *arguments: _compiled(target, *arguments)
