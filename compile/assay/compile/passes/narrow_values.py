"""A PrimFunc without the dtypes that a GPU language lacks: 32-bit values in their place.

8- and 16-bit integers are held in int32 and wrapped where an operation may leave their range, float64 becomes
float32, 64-bit integers become 32-bit ones. Loop variables and extents stay int64: TVM narrows them itself.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tvm
from tvm import tirx

from assay.compile.passes.tir_rewrite import FunctionRewriter
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    children,
    floordiv,
    floormod,
    i64,
    rebuild,
    simplify,
)

__all__ = ["PACKED", "ValueNarrower", "storage_dtype"]

PACKED = 4  # 8-bit elements in one word of int32, the first in its lowest byte

_STORED = {
    **dict.fromkeys(("int64", "int16", "uint16", "int8", "uint8", "bool"), "int32"),
    "uint64": "uint32",
    "float64": "float32",
    "bfloat16": "float32",
}
_BITS = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}
_WRAPPING = (tirx.Add, tirx.Sub, tirx.Mul, tirx.LShift, tirx.BitwiseNot)
_WRAPPING_CALLS = ("tirx.shift_left", "tirx.bitwise_not")
_INT32 = (-(2**31), 2**31 - 1)
_WRAPPED = 2**32
# Comparisons, and those of their operands in the other order.
_MIRRORED = {
    tirx.LT: tirx.GT, tirx.LE: tirx.GE, tirx.GT: tirx.LT, tirx.GE: tirx.LE,
    tirx.EQ: tirx.EQ, tirx.NE: tirx.NE,
}  # fmt: skip
# Beyond these, a constant stands for "no bound" and may be clamped.
_UNBOUNDED = 2**62


def storage_dtype(dtype: str, without: Collection[str]) -> str:
    """The dtype in which buffers hold ``dtype`` where they cannot be of the dtypes in ``without``."""
    return _STORED.get(dtype, dtype) if dtype in without else dtype


class ValueNarrower(FunctionRewriter):
    """Rewrites one function. ``packed``: parameters, only read, that hold four 8-bit elements in a word."""

    def __init__(self, without: Collection[str], packed: Collection[Buffer] = ()) -> None:
        super().__init__()
        self.without = without
        self.packed = set(packed)
        self.variables: dict[Expr, Expr] = {}

    def narrow(self, function: Any) -> Any:
        """``function`` on buffers of other dtypes. Raises NotImplementedError for what has no 32-bit form."""
        return self.rewrite(function, {p: self.buffer(p) for p in function.params if hasattr(p.ty, "shape")})

    def buffer(self, old: Buffer) -> Buffer:
        """A buffer of the dtype in which ``old`` is stored; of words where it is packed."""
        dtype = storage_dtype(str(old.ty.dtype), self.without)
        if old in self.packed:
            *outer, last = old.ty.shape
            shape = [*outer, floordiv(last + (PACKED - 1), PACKED)]
        elif dtype == str(old.ty.dtype):
            return old
        else:
            shape = list(old.ty.shape)
        return tirx.decl_buffer(shape, dtype, name=old.name, scope=old.scope())

    def region(self, region: Any) -> Any:
        """The same part of the new buffer, in words where it is packed."""
        moved = super().region(region)
        if region.source not in self.packed:
            return moved
        *outer, last = [
            tvm.ir.Range.from_min_extent(self.index(r.min), self.index(r.extent)) for r in region.region
        ]
        first = floordiv(last.min, PACKED)
        count = simplify(floordiv(last.min + last.extent - 1, PACKED) - first + 1)
        ranges = [*outer, tvm.ir.Range.from_min_extent(first, count)]
        return tirx.stmt.BufferRegion(moved.source, ranges)

    def index(self, expr: Expr) -> Expr:
        """``expr`` of its own dtype, whatever the buffers in it hold now."""
        return _cast(self.value(expr), _dtype(expr))

    def binding(self, var: Expr, value: Expr) -> tuple[Expr, Expr]:
        """The variable, of the dtype that its value has now."""
        value = self.value(value)
        if _dtype(value) != _dtype(var):
            self.variables[var] = tirx.Var(var.name, _dtype(value))
        return self.variables.get(var, var), value

    def store(self, statement: Stmt, indices: list[Expr]) -> Stmt:
        """A store of the value as the buffer holds it."""
        buffer = self.buffers.get(statement.buffer, statement.buffer)
        return tirx.BufferStore(buffer, _cast(self.value(statement.value), str(buffer.ty.dtype)), indices)

    def value(self, expr: Expr) -> Expr:
        """``expr`` in dtypes that there are."""
        if isinstance(expr, tirx.IntImm):
            return self._integer(expr)
        if isinstance(expr, tirx.FloatImm):
            return tirx.FloatImm(self._held(_dtype(expr)), expr.value)
        if isinstance(expr, tirx.Var):
            return self.variables.get(expr, expr)
        if isinstance(expr, tvm.ir.TensorLoad):
            return self._load(expr)
        if isinstance(expr, tirx.Cast):
            return self._converted(self.value(expr.value), _dtype(expr.value), _dtype(expr))
        if isinstance(expr, tirx.Let):
            var, bound = self.binding(expr.var, expr.value)
            return tirx.Let(var, bound, self.value(expr.body))
        if isinstance(expr, tvm.ir.Call):
            return self._call(expr)
        operands = children(expr)
        if not operands:
            return expr
        beyond = self._beyond(expr, operands)
        if beyond is not None:
            return beyond
        fresh = rebuild(expr, _unified(operands, [self.value(each) for each in operands]))
        return self._wrapped(fresh, _dtype(expr)) if isinstance(expr, _WRAPPING) else fresh

    def _beyond(self, expr: Expr, operands: tuple[Expr, ...]) -> Expr | None:
        """What becomes of an operation with a constant of int64 beyond 32 bits; None for all others.

        Sums and remainders by 2**32 are those of 32-bit integers, which wrap; comparisons are known.
        """
        if "int64" not in self.without or len(operands) != 2:
            return None
        if isinstance(operands[0], tirx.IntImm) and type(expr) in _MIRRORED:
            expr, operands = _MIRRORED[type(expr)](*reversed(operands)), (operands[1], operands[0])
        if not isinstance(operands[1], tirx.IntImm):
            return None
        number = int(operands[1].value)
        if _dtype(operands[1]) != "int64" or _INT32[0] <= number <= _INT32[1] or abs(number) >= _UNBOUNDED:
            return None
        if isinstance(expr, tirx.FloorMod) and number == _WRAPPED:
            return _cast(self.value(operands[0]), "int32")
        if isinstance(expr, tirx.Add | tirx.Sub):
            low = (number - _INT32[0]) % _WRAPPED + _INT32[0]
            return type(expr)(_cast(self.value(operands[0]), "int32"), tirx.IntImm("int32", low))
        kind = type(expr)
        if kind not in _MIRRORED:
            return None
        smaller = (tirx.LT, tirx.LE, tirx.NE)
        return tirx.const(kind in smaller if number > 0 else kind not in (*smaller[:2], tirx.EQ), "bool")

    def _held(self, dtype: str) -> str:
        """The dtype in which values of ``dtype`` are computed; indices stay int64, and bool stays bool."""
        return dtype if dtype in ("int64", "bool") else storage_dtype(dtype, self.without)

    def _integer(self, expr: Expr) -> Expr:
        number, dtype = int(expr.value), _dtype(expr)
        if dtype == "int64" and "int64" in self.without and not _INT32[0] <= number <= _INT32[1]:
            if abs(number) < _UNBOUNDED:
                raise NotImplementedError(f"the constant {number} does not fit into 32 bits")
            number = min(max(number, _INT32[0]), _INT32[1])
        return tirx.IntImm(self._held(dtype), number)

    def _load(self, expr: Expr) -> Expr:
        buffer = self.buffers.get(expr.source, expr.source)
        indices = [self.index(each) for each in expr.indices]
        dtype = _dtype(expr)
        if expr.source in self.packed:
            return _unpacked(buffer, indices, dtype)
        loaded = tirx.BufferLoad(buffer, indices)
        return _is_set(loaded) if dtype == "bool" and _dtype(loaded) != "bool" else loaded

    def _converted(self, value: Expr, source: str, target: str) -> Expr:
        """The cast from ``source`` to ``target`` of a value that is held in another dtype."""
        if target == "int64" and "int64" in self.without:
            return value if source == "int64" else _cast(value, "int32")
        if target == "bool":
            return value if source == "bool" else _is_set(value)
        held = _cast(value, self._held(target))
        return held if _fits(source, target) else self._wrapped(held, target)

    def _wrapped(self, value: Expr, dtype: str) -> Expr:
        """An int32 value brought back into the range of the narrow integers of ``dtype``."""
        bits = _BITS.get(dtype) if dtype in self.without else None
        if bits is None:
            return value
        if dtype.startswith("u"):
            return tirx.bitwise_and(value, tirx.const(2**bits - 1, "int32"))
        shift = tirx.const(32 - bits, "int32")
        return tirx.shift_right(tirx.shift_left(value, shift), shift)

    def _call(self, expr: Expr) -> Expr:
        dtype, name = _dtype(expr), getattr(expr.op, "name", "")
        arguments = [self.value(each) for each in expr.args]
        if name == "tirx.reinterpret" and dtype in self.without:
            if _BITS.get(dtype) != _BITS.get(_dtype(expr.args[0])):
                raise NotImplementedError(f"bits of {_dtype(expr.args[0])} cannot be read as {dtype}")
            return self._wrapped(arguments[0], dtype)
        alike = [i for i, each in enumerate(expr.args) if _dtype(each) == dtype]
        unified = _unified([expr.args[i] for i in alike], [arguments[i] for i in alike])
        for i, each in zip(alike, unified, strict=True):
            arguments[i] = each
        held = _dtype(unified[0]) if unified else self._held(dtype)
        result = expr.ty if held == dtype else tvm.ir.PrimType(held)
        fresh = tvm.ir.Call(expr.op, arguments, expr.attrs, ret_ty=result)
        return self._wrapped(fresh, dtype) if name in _WRAPPING_CALLS else fresh


def _dtype(expr: Expr) -> str:
    return str(getattr(expr.ty, "dtype", ""))


def _is_set(value: Expr) -> Expr:
    return tirx.NE(value, tirx.const(0, _dtype(value)))


def _cast(value: Expr, dtype: str) -> Expr:
    if _dtype(value) == dtype:
        return value
    if isinstance(value, tirx.IntImm) and dtype in ("int32", "int64"):
        return tirx.IntImm(dtype, int(value.value))
    return tirx.Cast(dtype, value)


def _unified(old: Any, fresh: list[Expr]) -> tuple[Expr, ...]:
    """Operands that had one dtype, of one dtype again: int32 where one of them is no index any more."""
    for i, each in enumerate(fresh):
        if _dtype(old[i]) == "int64" and any(
            _dtype(old[j]) == "int64" and _dtype(other) == "int32" for j, other in enumerate(fresh)
        ):
            fresh[i] = _cast(each, "int32")
    return tuple(fresh)


def _fits(source: str, target: str) -> bool:
    """Whether every value of ``source`` is one of ``target``, a narrow integer."""
    if target not in _BITS:
        return True
    if source == "bool" or source == target:
        return True
    return (source == "uint8" and _BITS[target] == 16) or (source == "int8" and target == "int16")


def _unpacked(buffer: Buffer, indices: list[Expr], dtype: str) -> Expr:
    """One 8-bit element, or whether it is not 0, of a buffer of words."""
    *outer, last = indices
    word = tirx.BufferLoad(buffer, [*outer, floordiv(last, PACKED)])
    at = simplify(tirx.Cast("int32", floormod(i64(last), PACKED)) * tirx.const(8, "int32"))
    if dtype == "int8":
        up = tirx.shift_left(word, tirx.const(24, "int32") - at)
        return tirx.shift_right(up, tirx.const(24, "int32"))
    byte = tirx.bitwise_and(tirx.shift_right(word, at), tirx.const(255, "int32"))
    return _is_set(byte) if dtype == "bool" else byte
