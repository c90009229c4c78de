"""Sizes of TIR in the terms of a launch plan, beside TVM's own arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from assay.errors import AssayError
from assay.runtime.plan import evaluate

SIZES: list[Callable[[Any, Any, Any], Any]] = [
    lambda t, n, m: n + 3,
    lambda t, n, m: n * m - 2 * n,
    lambda t, n, m: t.floordiv(n + 31, t.IntImm("int64", 32)),
    lambda t, n, m: t.floormod(n, m),
    lambda t, n, m: t.min(n, m) + t.max(n * 2, m),
    lambda t, n, m: t.Select(n > m, n, m * 2),
    lambda t, n, m: t.if_then_else(n >= 5, n, t.IntImm("int64", 7)),
    lambda t, n, m: t.Select(t.And(n < m, m != 9), n, m),
    lambda t, n, m: t.Cast("int64", t.Cast("int32", n) * 3),
    lambda t, n, m: t.shift_right(n + 63, t.IntImm("int64", 6)),
]


@pytest.mark.parametrize("make", SIZES)
def test_values_are_those_of_tvm(tvm: Any, make: Callable[[Any, Any, Any], Any]) -> None:
    from assay.compile.plan.expressions import to_expression
    from assay.compile.schedules.ir import as_int, substitute

    tirx = tvm.tirx
    n, m = tirx.Var("n", "int64"), tirx.Var("m", "int64")
    size = make(tirx, n, m)
    expression = to_expression(size, {n: "rows", m: "columns"})
    for rows, columns in [(1, 1), (5, 9), (64, 9), (100, 3)]:
        bound = substitute(size, {n: tirx.IntImm("int64", rows), m: tirx.IntImm("int64", columns)})
        expected = as_int(tvm.sym.Analyzer().simplify(bound))
        assert evaluate(expression, {"rows": rows, "columns": columns}) == expected


def test_what_is_not_known_before_the_run(tvm: Any) -> None:
    from assay.compile.plan.expressions import to_expression

    with pytest.raises(AssayError, match="not known"):
        to_expression(tvm.tirx.Var("count", "int64") + 1, {})
