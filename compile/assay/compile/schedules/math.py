"""Transcendental functions as float32 polynomials that vectorize: LLVM would call libm once per element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import tvm
from tvm import tirx

from assay.compile.schedules.ir import Buffer, Expr, Stmt, allocate, load, rewrite, seq, store, vectorized

__all__ = ["Registers", "exp_below_one", "vector_math", "with_registers"]

_Emit: TypeAlias = Callable[[Expr], Expr]
_Function: TypeAlias = Callable[[Expr, _Emit], Expr]

# Whole powers up to this are products.
_LARGEST_PRODUCT = 4


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's scheme, highest power first."""
    result = _f32(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + _f32(coefficient)
    return result


def _clamp(x: Expr, low: float, high: float) -> Expr:
    """x within limits; unlike min and max, which drop it, this passes NaN on."""
    x = tirx.Select(x > _f32(high), _f32(high), x)
    return tirx.Select(x < _f32(low), _f32(low), x)


# exp(r) on [-ln2/2, ln2/2] with the two last coefficients held at 1, least relative error 3e-9 (our own fit,
# reweighted least squares); within 1 ulp with the rounding of Horner's scheme.
_EXP = (1.3814539758e-3, 8.3687451417e-3, 4.1668390792e-2, 1.6666520399e-1, 4.9999993432e-1, 1.0, 1.0)
# 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits. 126 is the exponent's bias, less
# one: half of 2^n, so that n = 128 does not overflow before p(r) is known.
_ROUND = 12582912.0 + 126.0


def _exp(x: Expr, keep: _Emit) -> Expr:
    return _exp_of(x, keep, negate=False)


# At the lower limit the power's bits are those of 0, at the upper one the product overflows to infinity.
# Results below 1.66e-38 (denormals and a little more) are flushed to 0.
_EXP_LOWEST, _EXP_HIGHEST = -87.34, 89.0


def _exp_of(x: Expr, keep: _Emit, *, negate: bool) -> Expr:
    """e^x, or e^-x at the same cost."""
    low, high = (-_EXP_HIGHEST, -_EXP_LOWEST) if negate else (_EXP_LOWEST, _EXP_HIGHEST)
    return _exp_within(keep(_clamp(x, low, high)), keep, negate=negate)


def exp_below_one(x: Expr, registers: Registers, statements: list[Stmt]) -> Expr:
    """e^x in a register for x that is not above 0, which needs no upper limit; NaN passes."""
    x = registers.keep(x, statements)

    def keep(step: Expr) -> Expr:
        return registers.keep(step, statements)

    clamped = keep(tirx.Select(x < _f32(_EXP_LOWEST), _f32(_EXP_LOWEST), x))
    return keep(_exp_within(clamped, keep, negate=False))


def _exp_within(clamped: Expr, keep: _Emit, *, negate: bool) -> Expr:
    """e^x, or e^-x, for x within the limits."""
    rounded = keep(clamped * _f32((-1.0 if negate else 1.0) * 1.44269504088896341) + _f32(_ROUND))
    n = keep(rounded - _f32(_ROUND))
    low = n * _f32(-2.12194440e-4)
    r = keep(n * _f32(-0.693359375) - clamped - low if negate else clamped - n * _f32(0.693359375) - low)
    p = keep(_polynomial(r, tuple(2.0 * c for c in _EXP)))
    half_power = tirx.reinterpret("float32", tirx.reinterpret("int32", rounded) << tirx.const(23, "int32"))
    return p * half_power


# Eigen's generic tanh: an odd rational approximation on |x| < 7.9, saturated beyond; within 5 ulp. Both
# polynomials are scaled so that the denominator is 1 at 0, which keeps tiny arguments out of the denormals.
_TANH_SCALE = 1.0 / 4.89352518554385e-03
_TANH_P = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def _tanh(x: Expr, keep: _Emit) -> Expr:
    clamped = keep(_clamp(x, -7.90531110763549805, 7.90531110763549805))
    return _odd_rational(clamped, _TANH_P, _TANH_Q, _TANH_SCALE, keep)


# Odd rational approximation of erf on |x| < 4, as in Eigen and XLA (float32); below 4e-7 absolute.
_ERF_SCALE = -1.0 / 1.42647390514189e-02
_ERF_P = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_Q = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
    -1.42647390514189e-02,
)  # fmt: skip


def _erf(x: Expr, keep: _Emit) -> Expr:
    return _odd_rational(keep(_clamp(x, -4.0, 4.0)), _ERF_P, _ERF_Q, _ERF_SCALE, keep)


def _odd_rational(
    x: Expr, numerator: tuple[float, ...], denominator: tuple[float, ...], scale: float, keep: _Emit
) -> Expr:
    """x * P(x^2) / Q(x^2), both polynomials times ``scale``."""
    square = keep(x * x)
    top = keep(x * _polynomial(square, tuple(scale * c for c in numerator)))
    return top / _polynomial(square, tuple(scale * c for c in denominator))


def _sigmoid(x: Expr, keep: _Emit) -> Expr:
    exponential = keep(_exp_of(x, keep, negate=True))
    return _f32(1.0) / (_f32(1.0) + exponential)


def _cosh(x: Expr, keep: _Emit) -> Expr:
    """e^|x| / 2 + e^-|x| / 2; the exponential of half, squared, overflows no sooner than the result."""
    large, small = _half_exponentials(x, keep)
    return large + small


def _sinh(x: Expr, keep: _Emit) -> Expr:
    large, small = _half_exponentials(x, keep)
    difference = keep(large - small)
    signed = tirx.Select(x < _f32(0.0), _f32(0.0) - difference, difference)
    # The difference cancels near 0; Taylor's series to x^9 is exact there.
    square = keep(x * x)
    series = x + x * square * _polynomial(square, (1 / 362880, 1 / 5040, 1 / 120, 1 / 6))
    return tirx.Select(square < _f32(1.0), series, signed)


def _half_exponentials(x: Expr, keep: _Emit) -> tuple[Expr, Expr]:
    """e^|x| / 2 and e^-|x| / 2."""
    root = keep(_exp(keep(tirx.abs(x) * _f32(0.5)), keep))
    return keep(root * _f32(0.5) * root), keep(_f32(0.5) / root / root)


# Cephes logf (Moshier): x = 2^e * m with m in [sqrt(1/2), sqrt(2)); within 1 ulp.
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_SMALLEST_NORMAL = 1.17549435e-38


def _log(x: Expr, keep: _Emit) -> Expr:
    # A denormal has no exponent to take: scale it up, and take the scale's logarithm off again.
    is_tiny = x < _f32(_SMALLEST_NORMAL)
    scaled = keep(tirx.Select(is_tiny, x * _f32(2.0**23), x))
    bits = keep(tirx.reinterpret("int32", scaled))
    exponent = tirx.Cast("float32", (bits >> tirx.const(23, "int32")) - tirx.const(126, "int32"))
    mantissa = keep(
        tirx.reinterpret(
            "float32", (bits & tirx.const(0x007FFFFF, "int32")) | tirx.const(0x3F000000, "int32")
        )
    )
    low = mantissa < _f32(0.707106781186547524)
    e = keep(exponent - tirx.Select(low, _f32(1.0), _f32(0.0)) - tirx.Select(is_tiny, _f32(23.0), _f32(0.0)))
    m = keep(mantissa - _f32(1.0) + tirx.Select(low, mantissa, _f32(0.0)))
    square = keep(m * m)
    y = _polynomial(m, _LOG) * m * square + e * _f32(-2.12194440e-4) - _f32(0.5) * square
    value = keep(m + y + e * _f32(0.693359375))
    value = tirx.Select(x > _f32(3.4028234e38), x, value)
    value = tirx.Select(x > _f32(0.0), value, _f32(float("-inf")))
    return tirx.Select(x >= _f32(0.0), value, _f32(float("nan")))


def _log_in_base(base: float) -> _Function:
    return lambda x, keep: _log(x, keep) * _f32(1.0 / math.log(base))


_FUNCTIONS: dict[str, _Function] = {
    "exp": _exp,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "log": _log,
    "log2": _log_in_base(2.0),
    "log10": _log_in_base(10.0),
}


def _power(x: Expr, exponent: float, keep: _Emit) -> Expr | None:
    """x to a constant: products and square roots for small multiples of a quarter, else exp of a logarithm.

    None for large whole powers, which are left to the library: a negative base has no logarithm.
    """
    quarters = abs(exponent) * 4
    if quarters > 4 * _LARGEST_PRODUCT and exponent == int(exponent):
        return None
    if quarters != int(quarters) or quarters > 4 * _LARGEST_PRODUCT:
        return _exp(keep(keep(_log(x, keep)) * _f32(exponent)), keep)
    root = keep(tirx.sqrt(x)) if quarters % 4 else x
    factors = [keep(tirx.sqrt(root))] if quarters % 2 else []
    factors += [root] if quarters % 4 >= 2 else []
    whole = int(quarters // 4)
    square = x
    while whole:
        if whole % 2:
            factors.append(square)
        whole //= 2
        if whole:
            square = keep(square * square)
    if not factors:
        return _f32(1.0)
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return _f32(1.0) / keep(product) if exponent < 0 else product


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
    """``value`` with its transcendental calls on float32 expanded, and the statements it needs before it.

    Each step is kept in a register, so that it is computed once and vectorizes. The functions are total, so
    that hoisting one out of a conditional is safe.
    """
    statements: list[Stmt] = []

    def expand(node: Expr) -> Expr | None:
        if str(node.ty.dtype) != "float32":
            return None
        if _name_of(node) == "pow" and isinstance(node.args[1], tirx.FloatImm):
            base = registers.keep(node.args[0], statements)
            return _power(base, float(node.args[1].value), lambda step: registers.keep(step, statements))
        function = _FUNCTIONS.get(_name_of(node))
        if function is None:
            return None
        return function(
            registers.keep(node.args[0], statements), lambda step: registers.keep(step, statements)
        )

    return statements, rewrite(value, expand)


def with_registers(lanes: int, body: Callable[[Expr, Registers], Stmt]) -> Stmt:
    """``body(lane, registers)`` over ``lanes`` consecutive elements at once, after its registers."""
    declarations: list[Stmt] = []

    def scoped(lane: Expr) -> Stmt:
        registers = Registers(lanes, lane)
        statement = body(lane, registers)
        declarations.extend(registers.declarations)
        return statement

    statement = vectorized(lanes, scoped)
    return seq(declarations, statement)
