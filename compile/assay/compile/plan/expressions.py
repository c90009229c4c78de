"""Integer expressions of TIR as those of a launch plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import tirx

from assay.compile.schedules.ir import as_int, simplify
from assay.errors import AssayError
from assay.runtime.plan import Expression, evaluate

__all__ = ["to_expression"]

_BINARY: Mapping[str, tuple[str, bool]] = {
    # TIR's class: the plan's operator, and whether its operands change places.
    "Add": ("+", False),
    "Sub": ("-", False),
    "Mul": ("*", False),
    "FloorDiv": ("//", False),
    "FloorMod": ("%", False),
    # Sizes and their divisors are not negative, where both kinds of division agree.
    "Div": ("//", False),
    "Mod": ("%", False),
    "Min": ("min", False),
    "Max": ("max", False),
    "LT": ("<", False),
    "LE": ("<=", False),
    "GT": ("<", True),
    "GE": ("<=", True),
    "EQ": ("==", False),
    "NE": ("!=", False),
    # Of truth values, which are 0 and 1.
    "And": ("min", False),
    "Or": ("max", False),
}
_SHIFTS = {"LShift": "*", "RShift": "//"}


def to_expression(value: Any, variables: Mapping[Any, Expression]) -> Expression:
    """A size of TIR where its ``variables`` stand for these expressions.

    Raises AssayError for what a launch plan cannot say.
    """
    if isinstance(value, int):
        return value
    return _converted(simplify(value), variables)


def _converted(value: Any, variables: Mapping[Any, Expression]) -> Expression:
    known = as_int(value) if isinstance(value, tirx.IntImm) else None
    if known is not None:
        return known
    if isinstance(value, tirx.Var):
        if value in variables:
            return variables[value]
        raise AssayError(f"The size {value.name} is not known before the model runs.")
    kind = type(value).__name__
    if kind in _BINARY:
        operator, swapped = _BINARY[kind]
        operands = (_converted(value.a, variables), _converted(value.b, variables))
        return _folded(operator, *(reversed(operands) if swapped else operands))
    if kind in _SHIFTS:
        return _shifted(kind, value.a, value.b, variables)
    if isinstance(value, tirx.Cast):
        return _converted(value.value, variables)
    if isinstance(value, tirx.Not):
        return _folded("==", _converted(value.a, variables), 0)
    if isinstance(value, tirx.Select):
        parts = (value.condition, value.true_value, value.false_value)
        return _select(*(_converted(part, variables) for part in parts))
    return _call(value, variables)


def _call(value: Any, variables: Mapping[Any, Expression]) -> Expression:
    name = str(getattr(getattr(value, "op", None), "name", ""))
    if name == "prim.if_then_else":
        return _select(*(_converted(part, variables) for part in value.args))
    raise AssayError(f"The size {value} cannot be said in a launch plan.")


def _shifted(name: str, value: Any, places: Any, variables: Mapping[Any, Expression]) -> Expression:
    count = as_int(places)
    if count is None:
        raise AssayError(f"The size {value} shifted by {places} cannot be said in a launch plan.")
    return _folded(_SHIFTS[name], _converted(value, variables), 2**count)


def _select(condition: Expression, one: Expression, other: Expression) -> Expression:
    if isinstance(condition, int):
        return one if condition else other
    return ("select", condition, one, other)


def _folded(operator: str, a: Expression, b: Expression) -> Expression:
    """``(operator, a, b)``, as a number where both are, and without neutral elements."""
    if isinstance(a, int) and isinstance(b, int):
        return evaluate((operator, a, b), {})
    if (operator, b) in {("+", 0), ("-", 0), ("*", 1), ("//", 1)}:
        return a
    if (operator, a) in {("+", 0), ("*", 1)}:
        return b
    return (operator, a, b)
