from __future__ import annotations

import pytest

from assay.compile.schedules.context import ScheduleContext
from assay.compile.targets.x86_64_v3 import TARGET
from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import te, tirx  # noqa: E402

from assay.compile.schedules.blocks import read_function  # noqa: E402
from assay.compile.schedules.fusion import kept_blocks, plan_stages  # noqa: E402

CONTEXT = ScheduleContext(unit=TARGET.vector_unit)


def compute(name, shape, body):
    return te.compute(shape, body, name=name)


def plan(*tensors):
    function = read_function(te.create_prim_func(list(tensors)))
    return function, plan_stages(function.blocks, function, CONTEXT)


def names(blocks):
    return [block.name for block in blocks]


@pytest.fixture
def x():
    return te.placeholder((32, 64), "float32", name="x")


def test_a_chain_is_one_stage(x):
    a = compute("a", x.shape, lambda i, j: tirx.exp(x[i, j]))
    b = compute("b", x.shape, lambda i, j: a[i, j] * x[i, j])
    c = compute("c", x.shape, lambda i, j: b[i, j] + 1.0)
    _, found = plan(x, c)
    assert names(found.stages) == ["c"]
    assert names(found.producers) == ["a", "b"]


def test_a_diamond_is_one_stage(x):
    a = compute("a", x.shape, lambda i, j: tirx.exp(x[i, j]))
    b = compute("b", x.shape, lambda i, j: a[i, j] * 2.0)
    c = compute("c", x.shape, lambda i, j: a[i, j] + b[i, j])
    _, found = plan(x, c)
    assert names(found.stages) == ["c"]


def test_expensive_values_used_by_two_stages_are_stored(x):
    k = te.reduce_axis((0, 64), "k")
    a = compute("a", x.shape, lambda i, j: tirx.exp(x[i, j]))
    total = compute("total", (32,), lambda i: te.sum(a[i, k], axis=k))
    c = compute("c", x.shape, lambda i, j: a[i, j] / total[i])
    _, found = plan(x, c)
    assert names(found.stages) == ["a", "total", "c"]


def test_cheap_values_used_by_two_stages_are_computed_twice(x):
    k = te.reduce_axis((0, 64), "k")
    a = compute("a", x.shape, lambda i, j: x[i, j] + 1.0)
    total = compute("total", (32,), lambda i: te.sum(a[i, k], axis=k))
    c = compute("c", x.shape, lambda i, j: a[i, j] - total[i])
    _, found = plan(x, c)
    assert names(found.stages) == ["total", "c"]


def test_an_expensive_row_is_not_computed_for_every_element(x):
    row = te.placeholder((64,), "float32", name="row")
    a = compute("a", (64,), lambda j: tirx.exp(row[j]))
    b = compute("b", x.shape, lambda i, j: x[i, j] * a[j])
    _, found = plan(x, row, b)
    assert names(found.stages) == ["a", "b"]


def test_expensive_values_of_overlapping_windows_are_stored(x):
    k = te.reduce_axis((0, 3), "k")
    a = compute("a", x.shape, lambda i, j: tirx.exp(x[i, j]))
    b = compute("b", (30, 64), lambda i, j: te.sum(a[i + k, j], axis=k))
    _, found = plan(x, b)
    assert names(found.stages) == ["a", "b"]


def test_outputs_are_stages_and_unused_blocks_are_dropped(x):
    a = compute("a", x.shape, lambda i, j: x[i, j] + 1.0)
    b = compute("b", x.shape, lambda i, j: a[i, j] * 2.0)
    function, found = plan(x, a, b)
    assert names(found.stages) == ["a", "b"]
    assert names(kept_blocks(found.stages, found.producers, function)) == ["a", "b"]
