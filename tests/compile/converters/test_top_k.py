from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from assay.errors import UnsupportedOperatorError

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, Any]]


def top_k(make_model: MakeModel, x: Any, k: int, *, rows: int | str, **attributes: Any) -> onnx.ModelProto:
    axis = attributes.get("axis", -1)
    shape: list[Any] = list(x.shape)
    shape[axis] = k
    given: list[Any] = list(x.shape)
    if axis != 0:
        shape[0] = given[0] = rows
    return make_model(
        [node("TopK", ["x", "k"], ["v", "i"], **attributes)],
        {"x": (given, str(x.dtype))},
        {"v": (shape, str(x.dtype)), "i": (shape, "int64")},
        {"k": np.array([k])},
    )


@pytest.mark.parametrize(
    ("shape", "k", "attributes"),
    [
        ((3, 50), 5, {}),
        ((2, 3, 40), 40, {"largest": 0}),
        ((4, 9), 1, {"largest": 0, "sorted": 0}),
        ((7, 4, 5), 3, {"axis": 1}),
        ((300, 200), 7, {"axis": 0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_against_numpy(
    make_model: MakeModel, run_compiled: Run, shape: tuple[int, ...], k: int, attributes: Any, dtype: str
) -> None:
    # Few different values, so that there are equal ones.
    x = np.random.default_rng(k).integers(-9, 9, shape).astype(dtype)
    model = top_k(make_model, x, k, rows="rows", **attributes)
    axis, sign = attributes.get("axis", -1), 1 if attributes.get("largest", 1) == 0 else -1
    order = np.argsort(sign * x, axis=axis, kind="stable").take(range(k), axis=axis)
    outputs = run_compiled(model, {"x": x})
    np.testing.assert_array_equal(outputs["i"], order)
    np.testing.assert_array_equal(outputs["v"], np.take_along_axis(x, order, axis=axis))


def test_long_rows_and_infinities_as_onnx_runtime(make_model: MakeModel, agree: Callable[..., None]) -> None:
    x = np.random.default_rng(0).standard_normal((8, 9000), dtype=np.float32)
    x[0, :5] = [np.inf, -np.inf, np.inf, 0.0, -0.0]
    x[1] = np.arange(9000)
    x[2] = -np.inf
    agree(top_k(make_model, x, 20, rows=8), {"x": x})


def test_too_many_are_refused(make_model: MakeModel, run_compiled: Run) -> None:
    x = np.zeros((1, 5000), np.float32)
    with pytest.raises(UnsupportedOperatorError, match=r"TopK.*k is 2000"):
        run_compiled(top_k(make_model, x, 2000, rows=1), {"x": x})
