from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]


class Cnn:
    """A random graph of what convolutional networks are made of; each step reads one of the last values."""

    def __init__(self, seed: int, batch: int | str = 2) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, int, int]] = {"x": (5, 9, 11)}
        self.batch = batch
        self.tail = ["x"]

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = self.random.standard_normal(shape).astype(np.float32) * 0.3
        return name

    def integers(self, values: list[int]) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(values, np.int64)
        return name

    def emit(self, kind: str, inputs: list[str], shape: tuple[int, int, int], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(kind, inputs, [name], name=f"{kind}_{name}", **attributes))
        self.shapes[name] = shape
        return name

    def pick(self) -> str:
        return str(self.random.choice(list(self.shapes)[-3:]))

    def step(self) -> None:
        x = self.pick()
        channels, height, width = self.shapes[x]
        steps: list[Callable[[], str]] = [
            lambda: self.emit(
                "Conv", [x, self.weight(6, channels, 3, 3), self.weight(6)], (6, height, width), pads=[1] * 4
            ),
            lambda: self.emit(
                "Conv", [x, self.weight(channels, 1, 3, 3)], self.shapes[x], pads=[1] * 4, group=channels
            ),
            lambda: self.emit("Conv", [x, self.weight(7, channels, 1, 1)], (7, height, width)),
            lambda: self.emit("Relu", [x], self.shapes[x]),
            lambda: self.emit("Sigmoid", [x], self.shapes[x]),
            lambda: self.emit("Mul", [x, self.weight(channels, 1, 1)], self.shapes[x]),
            lambda: self.emit("Add", [self.weight(1, channels, height, 1), x], self.shapes[x]),
            lambda: self.emit("Sub", [x, self.weight(width)], self.shapes[x]),
            lambda: self.emit("Add", [x, self.same_as(x)], self.shapes[x]),
            lambda: self.concat(x),
            lambda: self.emit("MaxPool", [x], self.shapes[x], kernel_shape=[3, 3], pads=[1] * 4),
            lambda: self.narrow(x),
            lambda: self.emit(
                "Pad", [x, self.integers([0, 0, 1, 0, 0, 1, 0, 2])], (channels + 1, height + 1, width + 2)
            ),
            lambda: self.emit("Transpose", [x], (channels, width, height), perm=[0, 1, 3, 2]),
            lambda: self.emit("Transpose", [x], (height, width, channels), perm=[0, 2, 3, 1]),
            lambda: self.emit(
                "Reshape", [x, self.integers([0, height, channels, width])], (height, channels, width)
            ),
            lambda: self.squeeze_and_excite(x),
        ]
        self.random.choice(np.array(steps, dtype=object))()

    def same_as(self, x: str) -> str:
        same = [name for name, shape in self.shapes.items() if shape == self.shapes[x]]
        return str(self.random.choice(same))

    def narrow(self, x: str) -> str:
        channels, height, width = self.shapes[x]
        if width == 1:
            return self.emit("Neg", [x], self.shapes[x])
        return self.emit("AveragePool", [x], (channels, height, width - 1), kernel_shape=[1, 2])

    def concat(self, x: str) -> str:
        other = self.same_as(x)
        axis = int(self.random.integers(1, 4))
        shape = list(self.shapes[x])
        shape[axis - 1] *= 2
        return self.emit("Concat", [x, other], (shape[0], shape[1], shape[2]), axis=axis)

    def squeeze_and_excite(self, x: str) -> str:
        pooled = self.emit("GlobalAveragePool", [x], (self.shapes[x][0], 1, 1))
        gate = self.emit("Sigmoid", [pooled], self.shapes[pooled])
        return self.emit("Mul", [x, gate], self.shapes[x])

    def model(self, make_model: MakeModel, steps: int) -> onnx.ModelProto:
        for _ in range(steps):
            self.step()
        last = list(self.shapes)[-1]
        outputs: dict[str, Any] = {last: [self.batch, *self.shapes[last]]}
        flat = node("Flatten", [self.pick()], ["flat"])
        mean = node("ReduceMean", [last, self.integers([2, 3])], ["mean"], keepdims=0)
        outputs |= {"flat": [self.batch, None], "mean": [self.batch, self.shapes[last][0]]}
        return make_model([*self.nodes, flat, mean], {"x": [self.batch, 5, 9, 11]}, outputs, self.weights)


@pytest.mark.parametrize("seed", range(3))
def test_random_network(make_model: MakeModel, agree: Agree, seed: int) -> None:
    model = Cnn(seed).model(make_model, 10)
    agree(model, {"x": np.random.default_rng(seed).standard_normal((2, 5, 9, 11), dtype=np.float32)})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 124))
def test_many_random_networks(make_model: MakeModel, agree: Agree, seed: int) -> None:
    batch: int | str = "batch" if seed % 2 else 2
    model = Cnn(seed, batch).model(make_model, 6 + seed % 17)
    x = np.random.default_rng(seed).standard_normal((2, 5, 9, 11), dtype=np.float32)
    agree(model, {"x": x}, profile=("release", "debug")[seed % 3 == 0])


def _kinds(module: Any) -> list[str]:
    from tvm import relax
    from tvm.ir import Call

    kinds: list[str] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, Call) and hasattr(expr.op, "name"):
            kinds.append(str(expr.op.name).removeprefix("relax."))

    relax.analysis.post_order_visit(module["main"], visit)
    return kinds


def test_network_is_transposed_only_at_its_ends(tvm: Any, make_model: MakeModel) -> None:
    from assay.compile.importer import import_onnx
    from assay.compile.passes.constants import fold_constant_movement
    from assay.compile.passes.layout import to_channels_last

    w = np.ones((8, 8, 3, 3), np.float32)
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w"], ["c"], pads=[1] * 4),
        node("Add", ["b", "c"], ["d"]),
        node("Concat", ["d", "a"], ["e"], axis=1),
        node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["f"], ["g"]),
        node("Flatten", ["g"], ["y"]),
    ]
    model = make_model(nodes, {"x": [1, 8, 6, 6]}, {"y": [1, 16]}, {"w": w})
    module = fold_constant_movement(to_channels_last(fold_constant_movement(import_onnx(model))))
    kinds = _kinds(module)
    assert kinds.count("nn.conv2d") == 2
    assert kinds.count("permute_dims") == 1


def test_parts_and_groups_of_channels_stay_channels_last(
    tvm: Any, make_model: MakeModel, agree: Agree
) -> None:
    from assay.compile.importer import import_onnx
    from assay.compile.passes.constants import fold_constant_movement
    from assay.compile.passes.layout import to_channels_last

    integers = {"sizes": [3, 5], "starts": [0, 1], "ends": [3, 4], "axes": [1, 3], "steps": [2, 1]}
    grouped = {"split": [2, 4, 2, 6, 7], "merged": [2, 8, 6, 7]}
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        node("Split", ["a", "sizes"], ["b", "c"], axis=1),
        node("Relu", ["b"], ["d"]),
        node("Concat", ["c", "d"], ["e"], axis=1),
        node("Reshape", ["e", "split"], ["f"]),
        node("Sigmoid", ["f"], ["g"]),
        node("Transpose", ["g"], ["h"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["h", "merged"], ["i"]),
        node("Slice", ["i", "starts", "ends", "axes", "steps"], ["j"]),
        node("Conv", ["j", "v"], ["y"]),
    ]
    weights = {name: np.array(values) for name, values in {**integers, **grouped}.items()}
    random = np.random.default_rng(0)
    weights["w"] = random.standard_normal((8, 8, 3, 3), dtype=np.float32)
    weights["v"] = random.standard_normal((4, 2, 1, 1), dtype=np.float32)
    model = make_model(nodes, {"x": [2, 8, 6, 7]}, {"y": [2, 4, 6, 3]}, weights)
    agree(model, {"x": random.standard_normal((2, 8, 6, 7), dtype=np.float32)})
    module = to_channels_last(fold_constant_movement(import_onnx(model)))
    # At the ends, and the shuffle itself.
    assert _kinds(module).count("permute_dims") == 3
    assert "split" not in _kinds(module)
