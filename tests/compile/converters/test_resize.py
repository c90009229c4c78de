from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]
Run = Callable[..., dict[str, Any]]


PERMUTE = "relax.permute_dims"


def image(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


CASES: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "nearest, twice": ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}, (2, 2)),
    "nearest, rounding up": ({"mode": "nearest", "nearest_mode": "round_prefer_ceil"}, (1.7, 0.6)),
    "nearest, floor": ({"mode": "nearest", "nearest_mode": "floor"}, (2.5, 1)),
    "linear, half pixel": ({"mode": "linear"}, (2, 1.5)),
    "linear, down": ({"mode": "linear"}, (0.5, 0.4)),
    "linear, corners": ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, (2, 3)),
    "linear, as PyTorch": (
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
        (0.4, 2),
    ),
}


def resize(make_model: MakeModel, attributes: dict[str, Any], scales: tuple[float, float]) -> onnx.ModelProto:
    """A resize between two convolutions, as it stands in networks."""
    height, width = int(np.floor(5 * scales[0])), int(np.floor(7 * scales[1]))
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Resize", ["a", "", "scales"], ["b"], **attributes),
        node("Conv", ["b", "w"], ["y"]),
    ]
    weights = {"w": image(9, 9, 1, 1) * 0.3, "scales": np.array([1, 1, *scales], np.float32)}
    return make_model(nodes, {"x": ["batch", 9, 5, 7]}, {"y": ["batch", 9, height, width]}, weights)


@pytest.mark.parametrize(("attributes", "scales"), CASES.values(), ids=CASES.keys())
def test_against_the_specification(
    make_model: MakeModel, run_compiled: Run, attributes: dict[str, Any], scales: tuple[float, float]
) -> None:
    from onnx.reference import ReferenceEvaluator

    model, inputs = resize(make_model, attributes, scales), {"x": image(2, 9, 5, 7)}
    (expected,) = ReferenceEvaluator(model).run(None, inputs)
    np.testing.assert_allclose(run_compiled(model, inputs)["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_size_instead_of_scale(make_model: MakeModel, agree: Agree, mode: str) -> None:
    sizes = {"sizes": np.array([2, 3, 10, 9])}
    nodes = [node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode)]
    agree(make_model(nodes, {"x": [2, 3, 4, 6]}, {"y": [2, 3, 10, 9]}, sizes), {"x": image(2, 3, 4, 6)})
    sizes = {"sizes": np.array([9, 10])}
    nodes = [node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode, axes=[3, 2])]
    agree(make_model(nodes, {"x": [2, 3, 4, 6]}, {"y": [2, 3, 10, 9]}, sizes), {"x": image(2, 3, 4, 6)})


def test_one_pixel(make_model: MakeModel, agree: Agree) -> None:
    model = resize(
        make_model, {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, (0.2, 2)
    )
    agree(model, {"x": image(2, 9, 5, 7)})
    how = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
    agree(resize(make_model, how, (0.2, 2)), {"x": image(2, 9, 5, 7)})


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_older_forms(make_model: MakeModel, agree: Agree, mode: str) -> None:
    scales = {"scales": np.array([1, 1, 2, 3], np.float32)}
    for kind, opset in (("Resize", 10), ("Upsample", 9)):
        nodes = [node(kind, ["x", "scales"], ["y"], mode=mode)]
        model = make_model(nodes, {"x": [1, 3, 4, 6]}, {"y": [1, 3, 8, 18]}, scales, opset=opset)
        agree(model, {"x": image(1, 3, 4, 6)})


@pytest.mark.slow
def test_other_modes_are_tvms(make_model: MakeModel, agree: Agree) -> None:
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [node("Resize", ["x", "", "scales"], ["y"], mode="cubic")]
    agree(make_model(nodes, {"x": [1, 2, 6, 6]}, {"y": [1, 2, 12, 12]}, scales), {"x": image(1, 2, 6, 6)})


def test_network_stays_channels_last(tvm: Any, make_model: MakeModel) -> None:
    from tvm import relax

    from assay.compile.importer import import_onnx
    from assay.compile.passes.constants import fold_constant_movement
    from assay.compile.passes.layout import to_channels_last

    module = to_channels_last(
        fold_constant_movement(import_onnx(resize(make_model, {"mode": "linear"}, (2, 2))))
    )
    moves: list[Any] = []
    relax.analysis.post_order_visit(
        module["main"],
        lambda e: moves.append(e) if getattr(getattr(e, "op", None), "name", "") == PERMUTE else None,
    )
    assert len(moves) == 2
