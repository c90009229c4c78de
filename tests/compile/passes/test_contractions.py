from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.profiles import profiles
from assay.compile.targets import targets

MakeModel = Callable[..., onnx.ModelProto]


def kernels(model: onnx.ModelProto, *, winograd: bool) -> set[str]:
    """The names of the kernels that the convolutions of ``model`` become."""
    from tvm import tirx

    from assay.compile.importer import import_onnx
    from assay.compile.passes.contractions import convert_contractions
    from assay.compile.passes.layout import to_channels_last
    from assay.compile.schedules.context import ScheduleContext

    context = ScheduleContext(unit=targets()["x86-64-v3"].vector_unit)
    module = convert_contractions(to_channels_last(import_onnx(model)), context, winograd=winograd)
    return {str(v.name_hint) for v, f in module.functions.items() if isinstance(f, tirx.PrimFunc)}


@pytest.fixture(scope="module")
def convolution(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    w = np.ones((64, 64, 3, 3), np.float32)
    conv = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    return make_model([conv], {"x": [1, 64, 28, 28]}, {"y": [1, 64, 28, 28]}, {"w": w})


def test_kernel_is_named_after_its_algorithm(convolution: onnx.ModelProto) -> None:
    assert kernels(convolution, winograd=True) == {"winograd4_conv2d"}
    assert kernels(convolution, winograd=False) == {"conv2d"}


def test_only_the_debug_profile_keeps_convolutions_direct() -> None:
    assert {name for name, profile in profiles().items() if not profile.winograd} == {"debug"}


def test_winograd_joins_what_follows(tvm: Any, make_model: MakeModel) -> None:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower

    node = onnx.helper.make_node
    model = make_model(
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
            node("Add", ["c", "x"], ["s"]),
            node("Relu", ["s"], ["y"]),
        ],
        {"x": [1, 32, 16, 16]},
        {"y": [1, 32, 16, 16]},
        {"w": np.ones((32, 32, 3, 3), np.float32), "b": np.ones(32, np.float32)},
    )
    lowered = lower(
        import_onnx(model),
        target=targets()["x86-64-v3"],
        profile=profiles()["release"],
        sizes={},
        maxima={},
    )
    assert "fused_winograd4_conv2d_add_add1_relu" in lowered.kernels
