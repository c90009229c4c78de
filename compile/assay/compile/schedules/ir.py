"""Small constructors over TVM's TIR nodes, so that a kernel reads as the loops that it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import tirx
from tvm.sym import Analyzer

__all__ = [
    "CACHE_LINE",
    "Buffer",
    "Expr",
    "Stmt",
    "allocate",
    "as_int",
    "bind",
    "broadcast",
    "ceildiv",
    "children",
    "const_like",
    "constant",
    "flat_view",
    "floordiv",
    "floormod",
    "i64",
    "if_then",
    "lanes_at",
    "load",
    "loop",
    "minimum",
    "opaque",
    "own_extents",
    "parallel",
    "prefetch",
    "prefetch_run",
    "rebuild",
    "rewrite",
    "same_shape",
    "seq",
    "simplify",
    "store",
    "substitute",
    "unflatten",
    "vector_dtype",
    "vectorized",
    "walk",
]

# TVM ships no types; these names say what is meant.
Expr: TypeAlias = Any
Stmt: TypeAlias = Any
Buffer: TypeAlias = Any

_ANALYZER = Analyzer()

CACHE_LINE = 64
"""Bytes of a cache line."""

# tvm::runtime::kMaxStackAlloca.
_MAX_STACK_BYTES = 1024


def i64(value: int | Expr) -> Expr:
    """``value`` as an int64 expression."""
    if isinstance(value, int):
        return tirx.IntImm("int64", value)
    return value if str(value.ty.dtype) == "int64" else tirx.Cast("int64", value)


def as_int(value: int | Expr) -> int | None:
    """The constant behind ``value``, or None when it is symbolic."""
    if isinstance(value, int):
        return value
    value = simplify(value)
    return int(value.value) if isinstance(value, tirx.IntImm) else None


def simplify(value: Expr) -> Expr:
    """``value`` after arithmetic simplification."""
    return _ANALYZER.simplify(value)


def same_shape(a: Sequence[int | Expr], b: Sequence[int | Expr]) -> bool:
    """Whether two shapes are provably equal."""
    return len(a) == len(b) and all(
        _ANALYZER.can_prove_equal(i64(x), i64(y)) for x, y in zip(a, b, strict=True)
    )


def floordiv(a: int | Expr, b: int | Expr) -> Expr:
    """floor(a / b), folded where constant."""
    return simplify(tirx.floordiv(i64(a), i64(b)))


def floormod(a: int | Expr, b: int | Expr) -> Expr:
    """a mod b, folded where constant."""
    return simplify(tirx.floormod(i64(a), i64(b)))


def ceildiv(a: int | Expr, b: int) -> Expr:
    """ceil(a / b), folded where constant."""
    return floordiv(i64(a) + (b - 1), b)


def unflatten(position: Expr, extents: Sequence[int | Expr]) -> list[Expr]:
    """The index of a row-major position in ``extents``; nothing where there are none."""
    index: list[Expr] = []
    for extent in reversed(extents[1:]):
        index.insert(0, floormod(position, extent))
        position = floordiv(position, extent)
    return [position, *index] if extents else []


def own_extents(shape: Sequence[int | Expr]) -> list[Expr]:
    """A shape for a function made by hand: constants, and a variable of its own for each symbolic extent."""
    own: list[tuple[Expr, Expr]] = []
    extents: list[Expr] = []
    for extent in shape:
        if as_int(extent) is None:
            known = next((var for e, var in own if same_shape([e], [extent])), None)
            if known is None:
                known = tirx.Var("extent", "int64")
                own.append((extent, known))
            extents.append(known)
        else:
            extents.append(i64(extent))
    return extents


def minimum(a: int | Expr, b: int | Expr) -> Expr:
    """min(a, b), folded where constant."""
    return simplify(tirx.min(i64(a), i64(b)))


def loop(
    extent: int | Expr,
    body: Callable[[Expr], Stmt],
    name: str = "i",
    kind: tirx.ForKind = tirx.ForKind.SERIAL,
) -> Stmt:
    """``for name in range(extent): body(name)``; a loop of one iteration is only its body."""
    if as_int(extent) == 1 and kind != tirx.ForKind.VECTORIZED:
        return body(i64(0))
    var = tirx.Var(name, "int64")
    return tirx.For(var, i64(0), i64(extent), kind, body(var))


def parallel(extent: int | Expr, body: Callable[[Expr], Stmt], name: str, *, serial: bool = False) -> Stmt:
    """A loop over the worker threads, or a serial one where the work is too small to share."""
    kind = tirx.ForKind.SERIAL if serial else tirx.ForKind.PARALLEL
    return loop(extent, body, name, kind)


def vectorized(lanes: int, body: Callable[[Expr], Stmt]) -> Stmt:
    """``body`` over ``lanes`` consecutive elements at once."""
    if lanes == 1:
        return body(i64(0))
    return loop(lanes, body, "lane", tirx.ForKind.VECTORIZED)


def seq(*stmts: Stmt | Sequence[Stmt]) -> Stmt:
    """Statements one after the other (lists are flattened); a no-op where there is none."""
    flat: list[Stmt] = []
    for stmt in stmts:
        flat.extend(stmt) if isinstance(stmt, list | tuple) else flat.append(stmt)
    if not flat:
        return tirx.Evaluate(i64(0))
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def if_then(condition: Expr, then: Stmt, otherwise: Stmt | None = None) -> Stmt:
    """A branch, folded where the condition is constant."""
    value = as_int(condition)
    if value is None:
        return tirx.IfThenElse(condition, then, otherwise)
    return then if value else (otherwise if otherwise is not None else tirx.Evaluate(i64(0)))


def bind(name: str, value: Expr) -> tuple[Expr, list[Stmt]]:
    """A scalar computed once: its variable, and the statement that computes it (none for a constant)."""
    value = simplify(value)
    if isinstance(value, tirx.IntImm | tirx.Var):
        return value, []
    var = tirx.Var(name, value.ty.dtype)
    return var, [tirx.Bind(var, value)]


def opaque(name: str, value: Expr) -> tuple[Expr, list[Stmt]]:
    """``bind`` by way of memory.

    TVM's simplifier takes long over minima and divisions in what it knows to be a variable's value.
    """
    cell, declaration = allocate([1], str(value.ty.dtype), name, "local")
    var = tirx.Var(name, value.ty.dtype)
    return var, [declaration, store(cell, value, 0), tirx.Bind(var, load(cell, 0))]


def allocate(
    shape: Sequence[int | Expr], dtype: str, name: str, scope: str = "global"
) -> tuple[Buffer, Stmt]:
    """A buffer and the statement that allocates it: ``local`` for registers, ``global`` for workspace."""
    if scope == "local" and _bytes(shape, dtype) < _MAX_STACK_BYTES:
        # TVM turns every local allocation into a call of the workspace allocator, which keeps its values out
        # of registers; a small global one becomes a slot on the stack, which LLVM promotes.
        scope = "global"
    buffer = tirx.decl_buffer([i64(s) for s in shape], dtype, name=name, scope=scope)
    return buffer, tirx.AllocBuffer(buffer)


def _bytes(shape: Sequence[int | Expr], dtype: str) -> int:
    """The size of a constant shape; more than any stack slot where it is symbolic."""
    size = int("".join(c for c in dtype if c.isdigit()) or 8) // 8
    for extent in shape:
        size *= as_int(extent) or _MAX_STACK_BYTES
    return size


def flat_view(buffer: Buffer) -> tuple[Buffer, Stmt]:
    """A one-dimensional view of a row-major buffer, and the statement that declares it."""
    size = i64(1)
    for extent in buffer.ty.shape:
        size = size * i64(extent)
    view = tirx.decl_buffer(
        [simplify(size)], str(buffer.ty.dtype), name=f"{buffer.name}_flat", scope=buffer.scope()
    )
    return view, tirx.DeclBuffer(view, data=buffer.data)


def lanes_at(start: int | Expr, lanes: int) -> Expr:
    """The index of ``lanes`` consecutive elements from ``start``."""
    return i64(start) if lanes == 1 else tirx.Ramp(i64(start), i64(1), lanes)


def broadcast(value: Expr, lanes: int) -> Expr:
    """A scalar in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def vector_dtype(dtype: str, lanes: int) -> str:
    """The dtype of ``lanes`` elements; of one it is the element's own."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def constant(value: float, dtype: str, lanes: int) -> Expr:
    """``value`` in every lane."""
    return broadcast(const_like(value, dtype), lanes)


def const_like(value: float, dtype: str) -> Expr:
    """A scalar constant of ``dtype``."""
    return tirx.const(value, dtype)


def load(buffer: Buffer, *indices: int | Expr) -> Expr:
    """``buffer[indices]``."""
    return tirx.BufferLoad(buffer, [i64(i) if isinstance(i, int) else i for i in indices])


def store(buffer: Buffer, value: Expr, *indices: int | Expr) -> Stmt:
    """``buffer[indices] = value``."""
    return tirx.BufferStore(buffer, value, [i64(i) if isinstance(i, int) else i for i in indices])


def prefetch(buffer: Buffer, index: int | Expr, *, near: bool = False) -> Stmt:
    """Have the cache line of an element brought into L2, or into L1 where it is needed ``near``.

    An address behind the buffer does no harm.
    """
    address = tirx.address_of(load(buffer, index))
    read, level, data = (tirx.const(number, "int32") for number in (0, 3 if near else 2, 1))
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, read, level, data))


def prefetch_run(buffer: Buffer, first: Expr, count: int) -> list[Stmt]:
    """``prefetch`` into L1 of ``count`` consecutive elements."""
    elements = max(1, CACHE_LINE // _bytes([1], str(buffer.ty.dtype)))
    return [prefetch(buffer, first + at, near=True) for at in range(0, count, elements)]


_BINARY = (
    tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max,
    tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.And, tirx.Or,
    tirx.BitwiseAnd, tirx.BitwiseOr, tirx.BitwiseXor, tirx.LShift, tirx.RShift,
)  # fmt: skip


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression."""
    if isinstance(expr, _BINARY):
        return (expr.a, expr.b)
    if isinstance(expr, tirx.Cast):
        return (expr.value,)
    if isinstance(expr, tirx.Not | tirx.BitwiseNot):
        return (expr.a,)
    if isinstance(expr, tirx.Select):
        return (expr.condition, expr.true_value, expr.false_value)
    if isinstance(expr, tvm.ir.TensorLoad):
        return tuple(expr.indices)
    if isinstance(expr, tvm.ir.Call):
        return tuple(expr.args)
    if isinstance(expr, tirx.Let):
        return (expr.value, expr.body)
    return ()


def rebuild(expr: Expr, operands: tuple[Expr, ...]) -> Expr:
    """``expr`` with other operands."""
    if isinstance(expr, _BINARY):
        return type(expr)(*operands)
    if isinstance(expr, tirx.Cast):
        return tirx.Cast(expr.ty.dtype, *operands)
    if isinstance(expr, tirx.Not | tirx.BitwiseNot):
        return type(expr)(*operands)
    if isinstance(expr, tirx.Select):
        return tirx.Select(*operands)
    if isinstance(expr, tvm.ir.TensorLoad):
        return tirx.BufferLoad(expr.source, list(operands))
    if isinstance(expr, tvm.ir.Call):
        return tvm.ir.Call(expr.op, list(operands), expr.attrs, ret_ty=expr.ty)
    return tirx.Let(expr.var, *operands)


def rewrite(expr: Expr, replace: Callable[[Expr], Expr | None]) -> Expr:
    """``expr`` rebuilt from its leaves up; ``replace`` gives a node's replacement, or None to keep it."""
    operands = children(expr)
    fresh = tuple(rewrite(operand, replace) for operand in operands)
    if any(not new.same_as(old) for new, old in zip(fresh, operands, strict=True)):
        expr = rebuild(expr, fresh)
    replacement = replace(expr)
    return expr if replacement is None else replacement


def substitute(
    expr: Expr, variables: Mapping[Expr, Expr], loads: Callable[[Expr], Expr | None] | None = None
) -> Expr:
    """``expr`` with variables replaced, then each buffer load where ``loads`` gives a replacement."""

    def replace(node: Expr) -> Expr | None:
        if isinstance(node, tvm.ir.TensorLoad):
            return loads(node) if loads else None
        return variables.get(node) if isinstance(node, tirx.Var) else None

    return rewrite(expr, replace)


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node of an expression, operands first."""
    for operand in children(expr):
        yield from walk(operand)
    yield expr
