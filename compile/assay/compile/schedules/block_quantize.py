"""Activations as 8-bit integers with a scale for each block of a row.

The rule is that of ONNX Runtime's MatMulNBits with accuracy_level 4, and of llama.cpp's Q8_0: the largest
magnitude of a block becomes 127, and every number the nearest integer, ties to even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from tvm import tirx

from assay.compile.schedules.block_format import ActivationFormat
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    broadcast,
    const_like,
    flat_view,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    own_extents,
    parallel,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.quantized_rows import RowSource
from assay.compile.schedules.recurrent_kernel import SCHEDULED
from assay.compile.schedules.requantize import round_to_even

__all__ = ["quantize_function"]

_LARGEST = 127.0


def quantize_function(
    form: ActivationFormat,
    shape: list[int | Expr],
    context: ScheduleContext,
    source: RowSource | None = None,
) -> Expr:
    """The kernel from float32 ``[..., K]`` of this shape to int8 ``[..., row_bytes]``: ``form``'s rows.

    Of a ``source`` it takes the tensors instead, from which that computes the rows.
    """
    own = own_extents(shape)
    shapes = [own] if source is None else source.shapes(own[:-1], form.depth)
    given = [tirx.decl_buffer(each, "float32", name="x") for each in shapes]
    target = tirx.decl_buffer([*own[:-1], i64(form.row_bytes)], "int8", name="quantized")
    views = [flat_view(each) for each in given]
    tensors = [view for view, _ in views]
    q, declaration = flat_view(target)
    rows = i64(1)
    for extent in own[:-1]:
        rows = rows * extent
    lanes = min(context.unit.lanes(), 16)

    def row(r: Expr) -> Stmt:
        quads = _store_word(q, const_like(form.quads, "int32"), r * form.row_bytes + form.quads_at)
        start, read = _reader(form, source, tensors, r, lanes)
        return seq(quads, start, loop(form.blocks, lambda b: _block(form, read, q, r, b, lanes), "block"))

    # A vector of numbers takes about as long as two scalar operations.
    each = 2 + (0 if source is None else source.cost)
    rows, costs = simplify(rows), form.depth * each // lanes
    known = as_int(rows)
    if known is not None:
        body = parallel(rows, row, "row", serial=context.is_small(known * costs))
    else:
        alone, shared = (parallel(rows, row, "row", serial=serial) for serial in (True, False))
        body = if_then(context.is_small_at_run_time(rows * costs), alone, shared)
    function = tirx.PrimFunc([*given, target], seq([each for _, each in views], declaration, body))
    for key, value in {"tirx.noalias": True, SCHEDULED: True}.items():
        function = function.with_attr(key, value)
    return function


def _float(value: float) -> Expr:
    return const_like(value, "float32")


def _reduced(name: str, value: Expr, dtype: str) -> Expr:
    return tirx.call_llvm_pure_intrin(dtype, f"llvm.vector.reduce.{name}", value)


def _largest(value: Expr, lanes: int) -> Expr:
    """The largest element of a vector, by halves: LLVM's own reduction minds NaN, which takes longer."""
    while lanes > 1:
        lanes //= 2
        low, high = (tirx.Shuffle([value], [first + i for i in range(lanes)]) for first in (0, lanes))
        value = tirx.max(low, high)
    return value


def _store_word(q: Buffer, value: Expr, at: Expr) -> Stmt:
    """Four bytes of a row."""
    return store(q, tirx.reinterpret("int8x4", value), lanes_at(at, 4))


# For elements of a row, the first one and their number: statements, and the buffer and place to read them at.
_Read = Callable[[Expr, int], tuple[list[Stmt], Buffer, Expr]]


def _reader(
    form: ActivationFormat, source: RowSource | None, tensors: Sequence[Buffer], row: Expr, lanes: int
) -> tuple[Stmt, _Read]:
    """What comes first in a row, and how its elements are read."""
    if source is None:

        def stored(first: Expr, count: int) -> tuple[list[Stmt], Buffer, Expr]:
            at, statements = bind("source", row * i64(form.depth) + first)
            return statements, tensors[0], at

        return seq(), stored
    # All at first: elements wait for nothing but themselves, the scale of a block for all of its elements.
    start, known = source.begin(tensors, row, form.depth, lanes)
    values, declaration = allocate([form.depth], "float32", "values")
    filled = source.fill(tensors, known, row, form.depth, i64(0), form.depth, lanes, values)
    return seq(start, declaration, filled), lambda first, _: ([], values, first)


def _block(form: ActivationFormat, read: _Read, q: Buffer, row: Expr, block: Expr, lanes: int) -> Stmt:
    """One block of a row; the last one may be shorter than the others."""
    filled = form.depth % form.block
    whole = _elements(form, read, q, row, block, form.block, lanes)
    if not filled:
        return whole
    last = _elements(form, read, q, row, block, filled, lanes)
    return if_then(block < form.blocks - 1, whole, last) if form.blocks > 1 else last


def _elements(
    form: ActivationFormat, read: _Read, q: Buffer, row: Expr, block: Expr, count: int, lanes: int
) -> Stmt:
    """A block of which ``count`` elements exist: vectors, then single elements, then zeros."""
    lanes = min(lanes, form.block)
    vectors = count // lanes
    rest = range(vectors * lanes, count)
    statements, x, source = read(block * form.block, count)
    target, more = bind("target", row * i64(form.row_bytes))
    codes, last = bind("codes", target + block * form.block)
    statements += [*more, *last]
    largest, declaration = allocate([lanes], "float32", "largest", "local")
    total, second = allocate([lanes], "int32", "total", "local")
    statements += [declaration, second]
    everywhere = lanes_at(0, lanes)
    zero = broadcast(_float(0.0), lanes)
    statements.append(store(largest, zero, everywhere))
    statements.append(store(total, broadcast(const_like(0, "int32"), lanes), everywhere))

    def measure(v: Expr) -> Stmt:
        magnitude = tirx.abs(load(x, lanes_at(source + v * lanes, lanes)))
        return store(largest, tirx.max(load(largest, everywhere), magnitude), everywhere)

    statements.append(loop(vectors, measure, "vector") if vectors else seq())
    highest = _largest(load(largest, everywhere), lanes)
    highest = reduce(tirx.max, [tirx.abs(load(x, source + e)) for e in rest], highest)
    highest, more = bind("highest", highest)
    scale, last = bind("scale", highest / _float(_LARGEST))
    inverse, final = bind(
        "inverse", tirx.Select(highest > _float(0.0), _float(_LARGEST) / highest, _float(0.0))
    )
    statements += [*more, *last, *final]

    def quantize(v: Expr) -> Stmt:
        scaled = load(x, lanes_at(source + v * lanes, lanes)) * broadcast(inverse, lanes)
        rounded = _rounded(scaled, lanes)
        variable = tirx.Var("rounded", f"int32x{lanes}")
        return seq(
            tirx.Bind(variable, rounded),
            store(total, load(total, everywhere) + variable, everywhere),
            store(q, tirx.Cast(f"int8x{lanes}", variable), lanes_at(codes + v * lanes, lanes)),
        )

    statements.append(loop(vectors, quantize, "vector") if vectors else seq())
    singles = []
    for e in rest:
        single, more = bind("single", round_to_even(load(x, source + e) * inverse))
        statements += [*more, store(q, tirx.Cast("int8", single), codes + e)]
        singles.append(single)
    if count < form.block:
        zeros = loop(form.block - count, lambda e: store(q, const_like(0, "int8"), codes + count + e), "rest")
        statements.append(zeros)
    whole: Expr = _reduced("add", load(total, everywhere), "int32")
    whole, more = bind("sum", reduce(lambda a, b: a + b, singles, whole))
    at, last = bind("at", target + form.codes + block * 4)
    statements += [
        *more,
        *last,
        _store_word(q, scale, at),
        _store_word(q, scale * tirx.Cast("float32", whole), at + 4 * form.blocks),
        _store_word(q, whole, at + 8 * form.blocks),
    ]
    return seq(statements)


def _rounded(value: Expr, lanes: int) -> Expr:
    """round_to_even of a vector."""
    magic = 12582912.0
    shifted = tirx.reinterpret(f"int32x{lanes}", value + broadcast(_float(magic), lanes))
    return shifted - broadcast(const_like(0x4B400000, "int32"), lanes)
