from __future__ import annotations

import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import tirx  # noqa: E402

from assay.compile.schedules.ir import as_int, i64, load, simplify, substitute  # noqa: E402
from assay.compile.schedules.nest import coalesce, stride, vector_pieces  # noqa: E402
from assay.compile.schedules.program import Axis, make_analyzer  # noqa: E402


def make_axes(*extents):
    return [
        Axis(var=tirx.Var(name, "int64"), extent=i64(e) if isinstance(e, int) else e)
        for name, e in zip("abcd", extents, strict=False)
    ]


def extents(axes, offsets, expressions=()):
    merged, _ = coalesce(axes, list(expressions), offsets, make_analyzer(axes))
    return [as_int(axis.extent) for axis in merged]


def test_contiguous_axes_are_one():
    axes = make_axes(2, 3, 5)
    a, b, c = (axis.var for axis in axes)
    assert extents(axes, [(a * 3 + b) * 5 + c]) == [30]


def test_a_broadcast_keeps_its_axis():
    axes = make_axes(2, 3, 5)
    a, b, c = (axis.var for axis in axes)
    row = tirx.decl_buffer([5], "float32")
    assert extents(axes, [(a * 3 + b) * 5 + c], [load(row, c)]) == [6, 5]


def test_a_transposition_keeps_both_axes():
    axes = make_axes(2, 3, 5)
    a, b, c = (axis.var for axis in axes)
    source = tirx.decl_buffer([30], "float32")
    assert extents(axes, [(a * 3 + b) * 5 + c], [load(source, (b * 2 + a) * 5 + c)]) == [2, 3, 5]


def test_axes_of_one_iteration_go():
    axes = make_axes(1, 7, 1)
    a, b, c = (axis.var for axis in axes)
    assert extents(axes, [a * 7 + b + c]) == [7]


def test_an_axis_used_as_a_value_stays():
    axes = make_axes(3, 5)
    a, b = (axis.var for axis in axes)
    assert extents(axes, [a * 5 + b], [b]) == [3, 5]


def test_symbolic_extents_merge():
    n = tirx.Var("n", "int64")
    axes = make_axes(3, n)
    a, b = (axis.var for axis in axes)
    merged, zeros = coalesce(axes, [], [a * n + b], make_analyzer(axes))
    assert len(merged) == 1
    assert as_int(zeros[a]) == 0


def test_stride_of_a_gather_is_along_its_row():
    axes = make_axes(4, 8)
    a, b = (axis.var for axis in axes)
    index = tirx.decl_buffer([4], "int64")
    analyzer = make_analyzer(axes)
    offset = load(index, a) * 8 + b
    assert as_int(stride(offset, b, analyzer)) == 1
    assert as_int(stride(offset, a, analyzer)) is None


def run(statement, variables, visit):
    """Call ``visit`` with each evaluated position and vector length, in order."""
    if isinstance(statement, tirx.SeqStmt):
        for part in statement.seq:
            run(part, variables, visit)
    elif isinstance(statement, tirx.For):
        for i in range(as_int(substitute(statement.extent, variables))):
            run(statement.body, {**variables, statement.loop_var: i64(i)}, visit)
    elif isinstance(statement, tirx.Bind):
        variables[statement.var] = simplify(substitute(statement.value, variables))
    elif isinstance(statement, tirx.IfThenElse):
        if as_int(substitute(statement.condition, variables)):
            run(statement.then_case, variables, visit)
    else:
        start, count = list(statement.value.args)[-2:]
        visit(as_int(substitute(start, variables)), as_int(count))


@pytest.mark.parametrize("extent", [1, 5, 8, 31, 64, 100])
@pytest.mark.parametrize("unroll", [1, 4])
@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("symbolic", [False, True])
def test_pieces_cover_each_element_once(extent, unroll, heavy, symbolic):
    n = tirx.Var("n", "int64")

    def piece(start, count, slot):
        assert slot < unroll
        return tirx.Evaluate(tirx.call_extern("int64", "piece", start, i64(count)))

    statement = vector_pieces(n if symbolic else i64(extent), 8, piece, unroll=unroll, heavy=heavy)
    covered: list[int] = []
    run(statement, {n: i64(extent)}, lambda start, count: covered.extend(range(start, start + count)))
    assert sorted(covered) == list(range(extent))
