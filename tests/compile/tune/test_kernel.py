from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.compile.schedules.choices import (
    Choice,
    Workload,
    batched_matmul_workload,
    conv2d_workload,
    packed_matmul_workload,
)
from assay.compile.targets import targets
from assay.compile.tune.kernel import build_kernel, make_problem, panel_width
from assay.compile.tune.space import space_of

WORKLOADS = [
    packed_matmul_workload(13, 40, 21),
    batched_matmul_workload(3, 7, 20, 9),
    conv2d_workload((2, 5, 4), 6, 10, (3, 2), (2, 1), (1, 2), 2),
    conv2d_workload((1, 6, 6), 8, 16, (3, 3), (1, 1), (1, 1), 1),
]


def convolved(x: Any, filters: Any, size: dict[str, int]) -> Any:
    """The definition, one output at a time."""
    per_in, per_out = size["inputs"] // size["groups"], size["outputs"] // size["groups"]
    out = np.zeros((size["batch"], size["height"], size["width"], size["outputs"]))
    for n, h, w, o in np.ndindex(*out.shape):
        start = o // per_out * per_in
        for r, s in np.ndindex(size["kernel_h"], size["kernel_w"]):
            y = h * size["stride_h"] + r * size["dilation_h"]
            z = w * size["stride_w"] + s * size["dilation_w"]
            out[n, h, w, o] += x[n, y, z, start : start + per_in] @ filters[o, r, s]
    return out


def test_the_reference_of_a_convolution_is_its_definition() -> None:
    workload = WORKLOADS[2]
    size = workload.sizes
    problem = make_problem(workload)
    x, packed = problem.operands(8)
    per_out, taps = size["outputs"] // size["groups"], size["kernel_h"] * size["kernel_w"]
    panels = packed.reshape(size["groups"], -1, packed.shape[1], 8)
    columns = np.concatenate(
        [panels[g].transpose(1, 0, 2).reshape(packed.shape[1], -1)[:, :per_out] for g in range(2)], axis=1
    )
    filters = columns.T.reshape(size["outputs"], size["kernel_h"], size["kernel_w"], -1)
    assert taps * filters.shape[-1] == packed.shape[1]
    np.testing.assert_allclose(problem.expected, convolved(x, filters, size), rtol=1e-4, atol=1e-4)


@pytest.fixture
def run(tvm: Any, needs_avx2: None) -> Callable[[Workload, Choice], Any]:
    target = targets()["x86-64-v3"]

    def compute(workload: Workload, choice: Choice) -> Any:
        problem = make_problem(workload)
        kernel = build_kernel(workload, choice, target)
        operands = problem.operands(panel_width(workload, choice, target.vector_unit))
        tensors = [tvm.runtime.tensor(array) for array in (*operands, np.full_like(problem.expected, np.nan))]
        kernel(*tensors)
        return tensors[2].numpy(), problem.expected

    return compute


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
@pytest.mark.parametrize(
    "choice",
    [
        Choice(),
        Choice(rows=1, panel_width=8, unroll=1),
        Choice(rows=3, panel_width=24, unroll=2, chunk_rows=5),
        Choice(rows=5, panel_width=16, unroll=8, serial=True),
    ],
    ids=str,
)
def test_whatever_is_chosen_the_numbers_are_the_same(
    run: Callable[[Workload, Choice], Any], workload: Workload, choice: Choice
) -> None:
    actual, expected = run(workload, choice)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
def test_every_candidate_of_the_table_lies_in_the_grid(workload: Workload) -> None:
    unit = targets()["x86-64-v3"].vector_unit
    for width in (None, 16):
        space = space_of(workload, unit, 2, panel_width=width)
        grid = set(space.grid())
        table = list(space.table())
        assert table
        assert set(table) <= grid
        assert len(set(table)) == len(table)
        if width is not None:
            assert {choice.panel_width for choice in grid} == {width}
