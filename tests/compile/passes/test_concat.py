from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * 0.3


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels of what is compiled in this test."""
    from assay.compile import lower

    names: list[str] = []
    original = lower._schedule

    def schedule(module: Any, context: Any) -> Any:
        names.extend(str(variable.name_hint) for variable in module.functions)
        return original(module, context)

    monkeypatch.setattr(lower, "_schedule", schedule)
    return names


def branch(name: str, source: str, kernel: int, **attributes: Any) -> list[onnx.NodeProto]:
    """A convolution with bias and activation."""
    pads = [kernel // 2] * 4
    conv = node("Conv", [source, f"w_{name}", f"b_{name}"], [f"c_{name}"], pads=pads, **attributes)
    return [conv, node("Relu", [f"c_{name}"], [name])]


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    filters = {f"w_{name}": normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return {**filters, **{f"b_{name}": normal(shape[0], seed=9) for name, shape in shapes.items()}}


@pytest.mark.parametrize("batch", [2, "batch"])
def test_branches_write_into_one_array(
    make_model: MakeModel, agree: Agree, kernels: list[str], batch: int | str
) -> None:
    """Of odd widths, so that every kernel has a last panel that is not full: it must not spill over."""
    nodes = [
        *branch("a", "x", 1),
        *branch("p", "a", 3),
        *branch("q", "a", 1),
        *branch("r", "a", 3, group=6),
        *branch("s", "a", 5),
        node("Concat", ["q", "p", "s", "r"], ["y0"], axis=1),
        *branch("z", "y0", 1),
    ]
    model = make_model(
        nodes,
        {"x": [batch, 5, 7, 9]},
        {"z": [batch, 3, 7, 9]},
        weights(
            a=(6, 5, 1, 1), p=(11, 6, 3, 3), q=(5, 6, 1, 1), r=(6, 1, 3, 3), s=(19, 6, 5, 5), z=(3, 41, 1, 1)
        ),
    )
    agree(model, {"x": normal(2, 5, 7, 9)})
    assert sum("_part" in name for name in kernels) == 4
    assert not any("concat" in name for name in kernels)


def test_value_that_others_read_is_copied(make_model: MakeModel, agree: Agree, kernels: list[str]) -> None:
    nodes = [
        *branch("a", "x", 1),
        *branch("p", "a", 3),
        node("Concat", ["a", "p"], ["y"], axis=1),
        *branch("z", "y", 1),
    ]
    model = make_model(
        nodes,
        {"x": [1, 5, 4, 9]},
        {"z": [1, 3, 4, 9]},
        weights(a=(8, 5, 1, 1), p=(8, 8, 3, 3), z=(3, 16, 1, 1)),
    )
    agree(model, {"x": normal(1, 5, 4, 9)})
    assert not any("_part" in name for name in kernels)


def test_other_axes_and_repeated_parts_are_copied(
    make_model: MakeModel, agree: Agree, kernels: list[str]
) -> None:
    nodes = [
        *branch("p", "x", 3),
        *branch("q", "x", 1),
        node("Concat", ["p", "q"], ["y"], axis=2),
        *branch("z", "y", 1),
        node("Concat", ["z", "z"], ["twice"], axis=1),
        *branch("end", "twice", 1),
    ]
    model = make_model(
        nodes,
        {"x": [1, 5, 4, 9]},
        {"end": [1, 2, 8, 9]},
        weights(p=(8, 5, 3, 3), q=(8, 5, 1, 1), z=(3, 8, 1, 1), end=(2, 6, 1, 1)),
    )
    agree(model, {"x": normal(1, 5, 4, 9)})
    assert not any("_part" in name for name in kernels)


def test_outputs_are_values_of_their_own(make_model: MakeModel, agree: Agree) -> None:
    nodes = [
        node("MatMul", ["x", "v"], ["a"]),
        node("Relu", ["a"], ["p"]),
        node("MatMul", ["x", "w"], ["b"]),
        node("Tanh", ["b"], ["q"]),
        node("Concat", ["p", "q"], ["y"], axis=1),
    ]
    model = make_model(
        nodes, {"x": ["rows", 12]}, {"y": ["rows", 12], "q": ["rows", 5]},
        {"v": normal(12, 7), "w": normal(12, 5)},
    )  # fmt: skip
    agree(model, {"x": normal(9, 12)})
