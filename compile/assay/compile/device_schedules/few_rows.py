"""Products of a few rows on a device: every weight is read once for all of them.

A group computes consecutive outputs. Its threads lie beside each other in outputs, and take turns with the
blocks of the reduction; their sums are added in shared memory.
"""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tvm import tirx

from assay.compile.device_schedules.row_norm import RowNorm
from assay.compile.device_schedules.row_tile import RowTile
from assay.compile.device_schedules.threads import barrier, launch_grid, shared
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    broadcast,
    ceildiv,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    minimum,
    seq,
    simplify,
    store,
    vector_dtype,
)

__all__ = ["FewRows", "Weights", "few_rows_kernel"]


@dataclass(frozen=True, kw_only=True)
class Weights(ABC):
    """A matrix of ``outputs`` by ``steps``, whose words hold ``codes`` numbers of consecutive steps.

    ``block``: steps that share a scale, a multiple of ``codes``. ``dtype``: of a word. Outputs may be read up
    to the next multiple of ``grain``, which is a multiple of all lanes.
    """

    outputs: int
    steps: int
    block: int
    codes: int
    dtype: str
    grain: int

    @abstractmethod
    def word(self, number: Expr, output: Expr, lanes: int) -> Expr:
        """A word of consecutive outputs."""

    @abstractmethod
    def code(self, word: Expr, position: int, lanes: int) -> Expr:
        """The number at a position of words, as float32, times ``unit(position)``."""

    @abstractmethod
    def unit(self, position: int) -> float:
        """A power of two."""

    @abstractmethod
    def scaled(self, total: Expr, left: Expr, block: Expr, output: Expr, lanes: int) -> Expr:
        """What the sum of products over a block is worth; ``left``: the sum of the left operand there."""


@dataclass(frozen=True, kw_only=True)
class FewRows:
    """``result[row, n] = sum over k of left(row, k, 1) * weights[n, k]``, the rows of ``left`` normed before.

    ``left(row, k, lanes)``: elements from k on. ``finish(row, n, value)`` stores an element. ``norm``: None
    where the rows stay as they are. ``gate``: what becomes of outputs n and n + outputs / 2, whose halves are
    multiples of the weights' grain; ``finish`` takes that then. None where outputs stay as they are.
    """

    rows: Expr
    weights: Weights
    left: Callable[[Expr, Expr, int], Expr]
    finish: Callable[[Expr, Expr, Expr], Stmt]
    norm: RowNorm | None = None
    gate: Callable[[Expr, Expr], Expr] | None = None

    @property
    def columns(self) -> int:
        """Elements of a row of the result, and those that only fill the last panel."""
        weights = self.weights
        if self.gate is not None:
            return weights.outputs // 2
        return -(-weights.outputs // weights.grain) * weights.grain


def few_rows_kernel(product: FewRows, tile: RowTile) -> Stmt:
    """One launch that computes ``product``, ``tile.rows`` rows at a time."""
    return _Kernel(product, _fitted(product, tile)).emit()


def _fitted(product: FewRows, tile: RowTile) -> RowTile:
    """``tile``, smaller where the product is."""
    weights, rows = product.weights, as_int(product.rows)
    outputs, blocks = product.columns, -(-weights.steps // weights.block)
    if product.gate is not None:
        tile = replace(tile, vectors=max(1, tile.vectors // 2))
    if rows is not None:
        tile = replace(tile, rows=-(-rows // -(-rows // tile.rows)))
    while weights.steps % tile.left_lanes or weights.codes % tile.left_lanes:
        tile = replace(tile, left_lanes=tile.left_lanes // 2)
    while tile.step_threads > blocks:
        tile = replace(tile, step_threads=tile.step_threads // 2)
    while tile.column_threads > 1 and tile.width > outputs:
        tile = replace(tile, column_threads=tile.column_threads // 2)
    while tile.vectors > 1 and tile.width > outputs:
        tile = replace(tile, vectors=tile.vectors // 2)
    return tile


class _Kernel:
    def __init__(self, product: FewRows, tile: RowTile) -> None:
        self.p, self.t, self.w = product, tile, product.weights
        self.outputs = product.columns
        self.halves = 1 if product.gate is None else 2
        self.vectors = tile.vectors * self.halves
        dtype = vector_dtype("float32", tile.lanes)
        self.sums = [_local(self.vectors, dtype, f"sums{r}") for r in range(tile.rows)]
        self.parts = [_local(self.vectors, dtype, f"part{r}") for r in range(tile.rows)]
        self.words = _local(self.vectors, vector_dtype(self.w.dtype, tile.lanes), "words")
        self.left = _local(tile.rows, "float32", "left")
        self.lines = [_local(tile.lanes, "float32", f"line{h}") for h in range(self.halves)]
        self.factors = [_local(tile.left_lanes, "float32", f"factors{r}") for r in range(tile.rows)]
        # Of a norm: the sums of squares of what the thread reads of the rows, and factors of their elements.
        self.squares = _local(tile.rows, "float32", "squares")
        self.gains = _local(tile.left_lanes, "float32", "gains")

    def emit(self) -> Stmt:
        tile = self.t
        grid = [i64(-(-self.outputs // tile.width)), ceildiv(self.p.rows, tile.rows)]

        def thread(group: Sequence[Expr], lane: Expr) -> Stmt:
            # The last tile is moved to end with the result.
            start, one = bind("start", minimum(group[0] * tile.width, self.outputs - tile.width))
            across, two = bind("across", floormod(lane, tile.column_threads))
            turn, three = bind("turn", floordiv(lane, tile.column_threads))
            row, four = bind("row", group[1] * tile.rows)
            column, five = bind("column", start + across * tile.lanes)
            buffers = [*self.sums, *self.parts, self.words, self.left, *self.lines]
            buffers += self.factors if tile.left_lanes > 1 else []
            if self.p.norm is not None:
                buffers += [self.squares, self.gains]
            return seq(
                one, two, three, four, five, [tirx.AllocBuffer(each) for each in buffers],
                self._cleared(self.sums), self._no_squares(), self._reduction(row, column, turn),
                self._end(row, start, column, lane, turn),
            )  # fmt: skip

        return launch_grid(grid, tile.threads, thread)

    def _cleared(self, sums: Sequence[Buffer]) -> list[Stmt]:
        zero = broadcast(const_like(0.0, "float32"), self.t.lanes)
        return [store(each, zero, v) for each in sums for v in range(self.vectors)]

    def _no_squares(self) -> list[Stmt]:
        rows = range(self.t.rows if self.p.norm is not None else 0)
        return [store(self.squares, const_like(0.0, "float32"), r) for r in rows]

    def _column(self, column: Expr, vector: int) -> Expr:
        """The first output of a vector; those of the second half come after those of the first."""
        half, place = divmod(vector, self.t.vectors)
        return simplify(column + (half * self.outputs + place * self.t.lanes * self.t.column_threads))

    def _row(self, row: Expr, number: int) -> Expr:
        return row if self.t.rows == 1 else minimum(row + number, i64(self.p.rows) - 1)

    # The reduction.

    def _reduction(self, row: Expr, column: Expr, turn: Expr) -> list[Stmt]:
        blocks, turns = self.w.steps // self.w.block, self.t.step_threads
        own = floordiv(turn * -1 + (blocks + turns - 1), turns)

        def visit(i: Expr) -> Stmt:
            block, bound = bind("block", turn + i * turns)
            return seq(bound, self._block(row, column, block, self.w.block))

        statements: list[Stmt] = []
        if blocks:
            statements.append(loop(own, visit, "turn"))
        rest = self.w.steps % self.w.block
        if rest:
            first = turn.equal(0) if turns > 1 else i64(1)
            statements.append(if_then(first, self._block(row, column, i64(blocks), rest)))
        return statements

    def _block(self, row: Expr, column: Expr, block: Expr, steps: int) -> Stmt:
        """Add the first ``steps`` steps of a block."""
        codes, per_block = self.w.codes, self.w.block // self.w.codes
        clear = [store(self.left, const_like(0.0, "float32"), r) for r in range(self.t.rows)]

        def word(i: Expr) -> Stmt:
            return self._word(row, column, simplify(block * per_block + i), codes)

        statements: list[Stmt] = [*self._cleared(self.parts), *clear]
        if steps // codes:
            statements.append(loop(steps // codes, word, "word"))
        if steps % codes:
            last = simplify(block * per_block + steps // codes)
            statements.append(self._word(row, column, last, steps % codes))
        for r, (sums, parts) in enumerate(zip(self.sums, self.parts, strict=True)):
            for v in range(self.vectors):
                place = self._column(column, v)
                worth = self.w.scaled(load(parts, v), load(self.left, r), block, place, self.t.lanes)
                statements.append(store(sums, load(sums, v) + worth, v))
        return seq(statements)

    def _word(self, row: Expr, column: Expr, number: Expr, codes: int) -> Stmt:
        """Add the first ``codes`` codes of a word of each output."""
        lanes, statements = self.t.lanes, list[Stmt]()
        for v in range(self.vectors):
            # TVM's narrowing of indices takes a variable of several integers for one.
            statements.append(store(self.words, self.w.word(number, self._column(column, v), lanes), v))
        for i in range(codes):
            factors = []
            step = simplify(number * self.w.codes + i)
            statements += self._gain(step, i)
            for r in range(self.t.rows):
                factor, bound = self._factor(self._row(row, r), step, r, i)
                statements += [*bound, store(self.left, load(self.left, r) + factor, r)]
                small, bound = bind("factor", factor * const_like(1 / self.w.unit(i), "float32"))
                statements += bound
                factors.append(small)
            for v in range(self.vectors):
                code, bound = bind("code", self.w.code(load(self.words, v), i, lanes))
                statements += bound
                for factor, parts in zip(factors, self.parts, strict=True):
                    statements.append(store(parts, load(parts, v) + broadcast(factor, lanes) * code, v))
        return seq(statements)

    def _factor(self, row: Expr, step: Expr, number: int, position: int) -> tuple[Expr, list[Stmt]]:
        """An element of the left operand, which is read with those that follow where lanes are more."""
        lanes, read = self.t.left_lanes, list[Stmt]()
        if lanes == 1:
            element, bound = bind("element", self.p.left(row, step, 1))
            return self._normed(element, bound, number, position)
        if position % lanes == 0:
            read.append(
                store(self.factors[number], self.p.left(row, step, lanes), tirx.Ramp(i64(0), i64(1), lanes))
            )
        element, bound = bind("element", load(self.factors[number], position % lanes))
        return self._normed(element, [*read, *bound], number, position)

    def _gain(self, step: Expr, position: int) -> list[Stmt]:
        """Read the factors of a norm, as many as elements of the left operand."""
        lanes = self.t.left_lanes
        if self.p.norm is None or position % lanes:
            return []
        return [store(self.gains, self.p.norm.gain(step, lanes), lanes_at(0, lanes))]

    def _normed(
        self, element: Expr, before: list[Stmt], number: int, position: int
    ) -> tuple[Expr, list[Stmt]]:
        """An element times the gain of a norm; the root of the row waits for the end."""
        if self.p.norm is None:
            return element, before
        add = store(self.squares, load(self.squares, number) + element * element, number)
        factor, bound = bind("factor", element * load(self.gains, position % self.t.left_lanes))
        return factor, [*before, add, *bound]

    # The end.

    def _end(self, row: Expr, start: Expr, column: Expr, lane: Expr, turn: Expr) -> list[Stmt]:
        if self.t.step_threads > 1:
            return self._shared_end(row, start, column, lane, turn)
        statements = list[Stmt]()
        for r, sums in enumerate(self.sums):
            root, bound = None, list[Stmt]()
            if self.p.norm is not None:
                root, bound = bind("root", self.p.norm.root(load(self.squares, r)))
            statements += bound
            for v in range(self.t.vectors):
                values = [load(sums, v + h * self.t.vectors) for h in range(self.halves)]
                if root is not None:
                    values = [value * broadcast(root, self.t.lanes) for value in values]
                statements.append(self._vector_end(row + r, self._column(column, v), values))
        return statements

    def _gated(self, values: Sequence[Expr]) -> Expr:
        """An element of the result from one of each half."""
        return values[0] if self.p.gate is None else self.p.gate(*values)

    def _vector_end(self, row: Expr, column: Expr, values: Sequence[Expr]) -> Stmt:
        """Store a vector through memory of the thread: registers have no element of a variable number."""
        kept = [
            store(line, value, lanes_at(0, self.t.lanes))
            for line, value in zip(self.lines, values, strict=True)
        ]

        def element(n: Expr) -> Stmt:
            each, bound = bind("each", self._gated([load(line, n) for line in self.lines]))
            return seq(bound, self._element_end(row, column + n, each))

        return seq(kept, loop(self.t.lanes, element, "lane"))

    def _element_end(self, row: Expr, column: Expr, value: Expr) -> Stmt:
        at, bound = bind("at", column)
        done = seq(bound, self.p.finish(row, at, value))
        if self.outputs > self.w.outputs:
            done = if_then(column < self.w.outputs, done)
        return done if self.t.rows == 1 else if_then(row < self.p.rows, done)

    def _shared_end(self, row: Expr, start: Expr, column: Expr, lane: Expr, turn: Expr) -> list[Stmt]:
        """Add the sums of the threads that took turns; an element of the result a thread."""
        tile = self.t
        size = tile.rows * tile.width
        partial, declared = shared(self.halves * tile.step_threads * size, "float32", "partial")
        statements: list[Stmt] = [declared]
        for r, sums in enumerate(self.sums):
            for v in range(self.vectors):
                half, vector = divmod(v, tile.vectors)
                place = ((turn + half * tile.step_threads) * tile.rows + r) * tile.width + (column - start)
                place = simplify(place + vector * tile.lanes * tile.column_threads)
                statements.append(store(partial, load(sums, v), lanes_at(place, tile.lanes)))

        norm = self.p.norm
        squares, declared = shared(tile.step_threads * tile.rows, "float32", "all_squares")
        if norm is not None:
            own = [store(squares, load(self.squares, r), turn * tile.rows + r) for r in range(tile.rows)]
            statements += [declared, if_then(floormod(lane, tile.column_threads).equal(0), seq(own))]

        def element(i: Expr) -> Stmt:
            number, one = bind("number", lane + i * tile.threads)
            turns = range(tile.step_threads)
            values = [
                _sum(load(partial, number + (h * tile.step_threads + t) * size) for t in turns)
                for h in range(self.halves)
            ]
            if norm is not None:
                r = floordiv(number, tile.width)
                root = norm.root(_sum(load(squares, t * tile.rows + r) for t in turns))
                values = [value * root for value in values]
            total, two = bind("total", self._gated(values))
            place = row + floordiv(number, tile.width)
            finish = self._element_end(place, start + floormod(number, tile.width), total)
            body = seq(one, two, finish)
            return body if size % tile.threads == 0 else if_then(lane + i * tile.threads < size, body)

        return [*statements, barrier(), loop(-(-size // tile.threads), element, "element")]


def _sum(parts: Iterable[Expr]) -> Expr:
    return functools.reduce(operator.add, parts)


def _local(size: int, dtype: str, name: str) -> Buffer:
    return tirx.decl_buffer([i64(size)], dtype, name=name, scope="local")
