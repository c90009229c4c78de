from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from assay.errors import ModelError
from assay.models.providers import OnnxFile, RandomWeights

MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture
def cut_down(make_model: MakeModel, tmp_path: Path) -> OnnxFile:
    """A small network in the manner of the onnx package's: shapes instead of weights, one weight left."""
    shapes = {"w": (8, 3, 3, 3), "gamma": (8,), "variance": (8,), "dense": (1, 1, 10, 8)}
    nodes = [make_node("ConstantOfShape", [f"{name}_shape"], [name]) for name in shapes]
    nodes += [
        make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"]),
        make_node("Relu", ["n"], ["r"]),
        make_node("GlobalAveragePool", ["r"], ["p"]),
        make_node("Flatten", ["p"], ["f"]),
        make_node("Reshape", ["dense", "two"], ["dense2"]),
        make_node("Gemm", ["f", "dense2"], ["g"], transB=1),
        make_node("Softmax", ["g"], ["y"]),
    ]
    weights: dict[str, object] = {f"{name}_shape": np.array(shape) for name, shape in shapes.items()}
    weights |= {
        "beta": np.full(8, 7, np.float32),
        "mean": np.full(8, 7, np.float32),
        "two": np.array([10, 8]),
        "queue": np.float32(1),
    }
    model = make_model(nodes, {"x": [1, 3, 6, 6]}, {"y": [1, 10]}, weights)
    onnx.checker.check_model(model)
    path = tmp_path / "cut.onnx"
    onnx.save_model(model, path)
    return OnnxFile(path=path)


def _weights(
    provider: RandomWeights, folder: Path
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    model = onnx.load_model(provider.onnx_path(folder))
    onnx.checker.check_model(model)
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_every_weight_is_random_and_has_its_shape(cut_down: OnnxFile, tmp_path: Path) -> None:
    weights = _weights(RandomWeights(source=cut_down), tmp_path)
    assert {name: values.shape for name, values in weights.items()} == {
        "w": (8, 3, 3, 3),
        "gamma": (8,),
        "beta": (8,),
        "mean": (8,),
        "variance": (8,),
        "dense": (1, 1, 10, 8),
        "two": (2,),
    }
    assert all(values.std() > 0 for values in weights.values())
    assert weights["variance"].min() > 0


def test_the_scale_follows_from_what_a_weight_does(cut_down: OnnxFile, tmp_path: Path) -> None:
    weights = _weights(RandomWeights(source=cut_down, final_gain=0.25), tmp_path)
    assert weights["w"].std() == pytest.approx((2 / 27) ** 0.5, rel=0.2)
    assert weights["dense"].std() == pytest.approx((0.25 / 8) ** 0.5, rel=0.3)


def test_the_seed_decides(cut_down: OnnxFile, tmp_path: Path) -> None:
    first, again, other = (
        _weights(RandomWeights(source=cut_down, seed=seed), tmp_path)["w"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_the_scale_before_a_sum_is_smaller(make_model: MakeModel, tmp_path: Path) -> None:
    names = ["gamma", "beta", "mean", "variance"]
    nodes = [make_node("ConstantOfShape", ["shape"], [name]) for name in names]
    nodes += [
        make_node("BatchNormalization", ["x", *names], ["n"]),
        make_node("Sum", ["n", "x"], ["y"]),
    ]
    path = tmp_path / "sum.onnx"
    model = make_model(nodes, {"x": [1, 500, 2]}, {"y": [1, 500, 2]}, {"shape": np.array([500])})
    onnx.save_model(model, path)
    weights = _weights(RandomWeights(source=OnnxFile(path=path), residual_scale=0.3), tmp_path)
    assert weights["gamma"].mean() == pytest.approx(0.3, rel=0.05)
    assert weights["variance"].mean() == pytest.approx(1, rel=0.05)


def test_a_model_without_generated_weights_is_refused(linear_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError):
        RandomWeights(source=OnnxFile(path=linear_file)).onnx_path(tmp_path / "out")
    assert list((tmp_path / "out").glob("*.onnx")) == []
