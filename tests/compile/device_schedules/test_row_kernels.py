"""Running sums and top-k, one thread a row: executed on the CPU with threads as loops, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tvm
from tvm import tirx

from assay.compile.device_schedules.row_kernels import device_running_sum, device_top_k
from assay.compile.passes.tir_rewrite import FunctionRewriter

Array = npt.NDArray[Any]


class Serial(FunctionRewriter):
    """Threads as loops: rows do not see each other."""

    def _for(self, n: Any) -> Any:
        kind = tirx.ForKind.SERIAL if n.kind == tirx.ForKind.THREAD_BINDING else n.kind
        return tirx.For(n.loop_var, n.min, n.extent, kind, self.statement(n.body))


def run(function: Any, x: Array, *results: Array) -> None:
    serial = (
        Serial().rewrite(function.without_attr("tirx.is_scheduled"), {}).with_attr("global_symbol", "main")
    )
    compiled = tvm.tirx.build(tvm.IRModule({"main": serial}), target="llvm")
    held = [tvm.runtime.tensor(each) for each in results]
    compiled["main"](tvm.runtime.tensor(x), *held)
    for result, each in zip(results, held, strict=True):
        result[...] = each.numpy()


def numbers(*shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(1).integers(-9, 9, shape).astype(dtype)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize(("exclusive", "reverse"), [(False, False), (True, False), (True, True)])
def test_running_sums(axis: int, dtype: str, exclusive: bool, reverse: bool) -> None:
    x = numbers(3, 70, 5, dtype=dtype)
    size = tirx.Var("n", "int64")
    function = device_running_sum([3, size, 5], dtype, axis, exclusive=exclusive, reverse=reverse)
    found = np.zeros_like(x)
    run(function, x, found)
    flipped = np.flip(x, axis) if reverse else x
    expected = np.cumsum(flipped, axis) - (flipped if exclusive else 0)
    np.testing.assert_array_equal(found, np.flip(expected, axis) if reverse else expected)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 4, 17])
def test_the_first_of_equal_elements_comes_first(largest: bool, k: int) -> None:
    x = numbers(70, 17)
    values, positions = np.zeros((70, k), np.float32), np.zeros((70, k), np.int64)
    run(device_top_k([tirx.Var("n", "int64"), 17], "float32", k, largest=largest), x, values, positions)
    order = np.argsort(-x if largest else x, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, 1))


def test_a_vector_is_one_row() -> None:
    x = numbers(90)
    found = np.zeros_like(x)
    run(device_running_sum([90], "float32", 0, exclusive=False, reverse=False), x, found)
    np.testing.assert_array_equal(found, np.cumsum(x))
