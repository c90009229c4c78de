from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, Any]]


def running_sum(x: Any, axis: int, exclusive: int, reverse: int) -> Any:
    x = np.flip(x, axis) if reverse else x
    total = np.cumsum(x, axis=axis, dtype=x.dtype)
    total = total - x if exclusive else total
    return np.flip(total, axis) if reverse else total


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, 37), 1), ((5, 37), 0), ((3, 6, 11), -2), ((300, 200), 1), ((4, 1, 9), 1)],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float64", "int32"])
@pytest.mark.parametrize(("exclusive", "reverse"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_against_numpy(
    make_model: MakeModel, run_compiled: Run, shape: tuple[int, ...], axis: int, dtype: str,
    exclusive: int, reverse: int,
) -> None:  # fmt: skip
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    sizes = ["rows", *shape[1:]]
    model = make_model(
        [node("CumSum", ["x", "axis"], ["y"], exclusive=exclusive, reverse=reverse)],
        {"x": (sizes, dtype)},
        {"y": (sizes, dtype)},
        {"axis": np.array(axis)},
    )
    wanted = running_sum(x, axis, exclusive, reverse)
    np.testing.assert_array_equal(run_compiled(model, {"x": x})["y"], wanted)


def test_in_a_network(make_model: MakeModel, agree: Callable[..., None]) -> None:
    """As text models number their positions."""
    nodes = [
        node("Not", ["padding"], ["kept"]),
        node("Cast", ["kept"], ["mask"], to=onnx.TensorProto.INT32),
        node("CumSum", ["mask", "axis"], ["count"]),
        node("Mul", ["count", "mask"], ["positions"]),
    ]
    model = make_model(
        nodes,
        {"padding": (["batch", "length"], "bool")},
        {"positions": (["batch", "length"], "int32")},
        {"axis": np.array(1)},
    )
    agree(model, {"padding": np.random.default_rng(1).random((3, 10)) < 0.3})
