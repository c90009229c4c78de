"""Transcendental functions as float32 polynomials that vectorize: LLVM would call libm once per element."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import tirx

from assay.compile.schedules.ir import Buffer, Expr, Stmt, allocate, load, rewrite, seq, store, vectorized

__all__ = ["Registers", "vector_math", "with_registers"]

_Emit = Callable[[Expr], Expr]


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's scheme, highest power first."""
    result = _f32(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + _f32(coefficient)
    return result


# Cephes expf (Moshier): 2^n * p(r), r in [-ln2/2, ln2/2], two-part ln2; about 1 ulp.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def _exp(x: Expr, keep: _Emit) -> Expr:
    # Past these limits float32 overflows, or is a denormal that is flushed to zero.
    low, high = -87.33654, 88.72283
    clamped = keep(tirx.max(tirx.min(x, _f32(88.3762626647949)), _f32(low)))
    n = keep(tirx.floor(clamped * _f32(1.44269504088896341) + _f32(0.5)))
    r = keep(clamped - n * _f32(0.693359375) - n * _f32(-2.12194440e-4))
    p = keep(_polynomial(r, _EXP) * r * r + r + _f32(1.0))
    power = tirx.reinterpret(
        "float32", (tirx.Cast("int32", n) + tirx.const(127, "int32")) * tirx.const(1 << 23, "int32")
    )
    value = keep(p * power)
    value = tirx.Select(x > _f32(high), _f32(float("inf")), value)
    value = tirx.Select(x < _f32(low), _f32(0.0), value)
    return tirx.Select(x == x, value, x)


# Eigen's generic tanh: an odd rational approximation on |x| < 7.9, saturated beyond; a few ulp.
_TANH_P = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def _tanh(x: Expr, keep: _Emit) -> Expr:
    clamped = keep(tirx.max(tirx.min(x, _f32(7.90531110763549805)), _f32(-7.90531110763549805)))
    square = keep(clamped * clamped)
    value = clamped * _polynomial(square, _TANH_P) / _polynomial(square, _TANH_Q)
    return tirx.Select(x == x, value, x)


# Odd rational approximation of erf on |x| < 4, as in Eigen and XLA (float32); below 4e-7 absolute.
_ERF_P = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_Q = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02,
)  # fmt: skip


def _erf(x: Expr, keep: _Emit) -> Expr:
    clamped = keep(tirx.max(tirx.min(x, _f32(4.0)), _f32(-4.0)))
    square = keep(clamped * clamped)
    value = clamped * _polynomial(square, _ERF_P) / _polynomial(square, _ERF_Q)
    return tirx.Select(x == x, value, x)


def _sigmoid(x: Expr, keep: _Emit) -> Expr:
    exponential = keep(_exp(keep(_f32(0.0) - x), keep))
    return _f32(1.0) / (_f32(1.0) + exponential)


# Cephes logf (Moshier): x = 2^e * m with m in [sqrt(1/2), sqrt(2)).
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip


def _log(x: Expr, keep: _Emit) -> Expr:
    smallest = 1.17549435e-38
    bits = keep(tirx.reinterpret("int32", tirx.max(x, _f32(smallest))))
    exponent = tirx.Cast("float32", (bits >> tirx.const(23, "int32")) - tirx.const(126, "int32"))
    mantissa = keep(
        tirx.reinterpret(
            "float32", (bits & tirx.const(0x007FFFFF, "int32")) | tirx.const(0x3F000000, "int32")
        )
    )
    low = mantissa < _f32(0.707106781186547524)
    e = keep(exponent - tirx.Select(low, _f32(1.0), _f32(0.0)))
    m = keep(mantissa - _f32(1.0) + tirx.Select(low, mantissa, _f32(0.0)))
    square = keep(m * m)
    y = _polynomial(m, _LOG) * m * square + e * _f32(-2.12194440e-4) - _f32(0.5) * square
    value = keep(m + y + e * _f32(0.693359375))
    value = tirx.Select(x < _f32(smallest), _f32(float("-inf")), value)
    value = tirx.Select(x > _f32(3.4028234e38), x, value)
    return tirx.Select(x >= _f32(0.0), value, _f32(float("nan")))


_FUNCTIONS: dict[str, Callable[[Expr, _Emit], Expr]] = {
    "exp": _exp,
    "tanh": _tanh,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "log": _log,
}


def _name_of(node: Expr) -> str:
    if not isinstance(node, tvm.ir.Call) or not isinstance(node.op, tvm.ir.Op):
        return ""
    return str(node.op.name).rpartition(".")[2]


class Registers:
    """Arrays of ``lanes`` elements that live in vector registers: one element for each lane of a loop.

    They are declared before the vectorized loop (``declarations``) and indexed by its ``lane`` inside.
    """

    def __init__(self, lanes: int, lane: Expr) -> None:
        self.lanes = lanes
        self.lane = lane
        self.declarations: list[Stmt] = []

    def new(self, dtype: str) -> Buffer:
        """A fresh array."""
        register, declaration = allocate([self.lanes], dtype, "register", "local")
        self.declarations.append(declaration)
        return register

    def keep(self, value: Expr, statements: list[Stmt]) -> Expr:
        """Append to ``statements`` the store of ``value``, and give the load that stands for it."""
        register = self.new(str(value.ty.dtype))
        statements.append(store(register, value, self.lane))
        return load(register, self.lane)


def vector_math(value: Expr, registers: Registers) -> tuple[list[Stmt], Expr]:
    """``value`` with its transcendental calls on float32 expanded, and the statements that it needs before it.

    Each step is kept in a register, so that it is computed once and vectorizes. The functions are total, so
    that hoisting one out of a conditional is safe.
    """
    statements: list[Stmt] = []

    def expand(node: Expr) -> Expr | None:
        function = _FUNCTIONS.get(_name_of(node))
        if function is None or str(node.ty.dtype) != "float32":
            return None
        return function(
            registers.keep(node.args[0], statements), lambda step: registers.keep(step, statements)
        )

    return statements, rewrite(value, expand)


def with_registers(lanes: int, body: Callable[[Expr, Registers], Stmt]) -> Stmt:
    """``body(lane, registers)`` over ``lanes`` consecutive elements at once, its registers declared before."""
    declarations: list[Stmt] = []

    def scoped(lane: Expr) -> Stmt:
        registers = Registers(lanes, lane)
        statement = body(lane, registers)
        declarations.extend(registers.declarations)
        return statement

    statement = vectorized(lanes, scoped)
    return seq(declarations, statement)
