"""A register tile on its own: rows of accumulators that stay in registers while a reduction is walked."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    broadcast,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    seq,
    simplify,
    store,
)

__all__ = ["accumulate", "fold_lanes", "leftover_rows", "row_tiles", "vector_variable"]

# The most rows left over that get a tile of their own height.
_EXACT_TAILS = 3

# Multiply-adds of one iteration, at most.
_MAX_UNROLLED = 64


def row_tiles(count: Expr, height: int, tile: Callable[[Expr, int], Stmt]) -> Stmt:
    """``count`` rows in tiles of ``height``, then what is left of them."""
    full = floordiv(count, height)
    done, statements = bind("done", full * height)
    statements = [loop(full, lambda t: tile(t * height, height), "row_tile"), *statements]
    rest = leftover_rows(simplify(count - done), height, lambda at, size: tile(done + at, size))
    return seq([*statements, *rest])


def leftover_rows(left: Expr, height: int, tile: Callable[[Expr, int], Stmt]) -> list[Stmt]:
    """``left`` rows, fewer than ``height``: one tile, or one for each power of two in their number.

    ``tile`` takes the first of its rows, counted from the first one left over, and their number.
    """
    if height <= _EXACT_TAILS + 1:
        return [if_then(tirx.EQ(left, i64(size)), tile(i64(0), size)) for size in range(1, height)]
    statements = []
    size = 1 << (height - 1).bit_length() >> 1
    while size:
        at = simplify(floordiv(left, 2 * size) * (2 * size))
        statements.append(if_then(floormod(floordiv(left, size), 2) > 0, tile(at, size)))
        size //= 2
    return statements


def accumulate(
    height: int,
    width: int,
    lanes: int,
    depth: Expr | int,
    operands: Callable[[Expr], tuple[list[Expr], list[Expr]]],
    begin: Callable[[int, int], Expr] | None = None,
    *,
    few_rows: bool = False,
    beside: Callable[[Expr], list[Stmt]] | None = None,
) -> tuple[list[Buffer], list[Stmt]]:
    """A tile's accumulators, ``height`` rows of ``width``, and the statements that sum over ``depth``.

    ``few_rows``: the broadcast operands of all rows stay in registers during a step, and the vectors of the
    other operand come one by one; else the other way round. ``beside``: what else a step does.
    """
    made = [allocate([width], "float32", "accumulators", "local") for _ in range(height)]
    accumulators = [buffer for buffer, _ in made]
    places = [(i, j) for i in range(height) for j in range(0, width, lanes)]
    zero = broadcast(const_like(0.0, "float32"), lanes)
    statements: list[Stmt] = [declaration for _, declaration in made]
    for i, j in places:
        statements.append(store(accumulators[i], begin(i, j) if begin else zero, lanes_at(j, lanes)))

    def step(k: Expr) -> list[Stmt]:
        a, b = operands(k)
        order = sorted(places, key=lambda place: place[1]) if few_rows else places
        others = beside(k) if beside else []
        return others + [
            store(
                accumulators[i],
                load(accumulators[i], lanes_at(j, lanes)) + broadcast(a[i], lanes) * b[j // lanes],
                lanes_at(j, lanes),
            )
            for i, j in order
        ]

    unroll = 4
    while len(places) * unroll > _MAX_UNROLLED and unroll > 1:
        unroll //= 2
    blocks = floordiv(depth, unroll)
    if as_int(blocks) != 0:
        statements.append(loop(blocks, lambda k: seq(*(step(k * unroll + u) for u in range(unroll))), "k"))
    left = floormod(depth, unroll)
    if as_int(left) != 0:
        done = simplify(i64(blocks) * unroll)
        statements.append(loop(left, lambda k: seq(step(done + k)), "k_tail"))
    return accumulators, statements


def vector_variable(value: Expr, lanes: int, statements: list[Stmt]) -> Expr:
    """``value`` in a variable of its own."""
    variable = tirx.Var("vector", f"float32x{lanes}")
    statements.append(tirx.Bind(variable, value))
    return variable


def fold_lanes(buffer: Buffer, count: int, combine: Callable[[Expr, Expr], Expr]) -> list[Stmt]:
    """The first ``count`` elements, a power of two, combined into the first one."""
    statements = []
    while count > 1:
        count //= 2
        low, high = load(buffer, lanes_at(0, count)), load(buffer, lanes_at(count, count))
        statements.append(store(buffer, combine(low, high), lanes_at(0, count)))
    return statements
