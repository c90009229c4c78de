"""Sums of products on a device: each thread keeps a tile of the result in registers.

For each step of the reduction a thread reads a column of the one operand and a row of the other, and adds
all their products (Volkov and Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvm import tirx

from assay.compile.device_schedules.threads import launch_grid
from assay.compile.device_schedules.tile_table import DeviceTile
from assay.compile.schedules.ir import (
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
    load,
    loop,
    minimum,
    seq,
    simplify,
    store,
    vector_dtype,
)

__all__ = ["Product", "product_kernel"]

_MULTIPLY_ADD = 0.25  # of what a read costs


@dataclass(frozen=True, kw_only=True)
class Product:
    """``result[batch, row, column] = sum over steps of left[batch, row, step] * right[batch, step, column]``.

    ``left(batch, row, step)`` is an element; ``right(batch, step, column, lanes)`` consecutive ones, or None
    where these do not lie beside each other; with one lane it is an element. ``right_overruns``: elements of
    ``right`` behind the last column may be read.
    ``finish(batch, row, column, value)`` stores one element.
    """

    batch: tuple[Expr, ...]
    rows: Expr
    columns: Expr
    steps: tuple[Expr, ...]
    left: Callable[[Sequence[Expr], Expr, Sequence[Expr]], Expr]
    right: Callable[[Sequence[Expr], Sequence[Expr], Expr, int], Expr | None]
    finish: Callable[[Sequence[Expr], Expr, Expr, Expr], Stmt]
    right_overruns: bool = False


def product_kernel(product: Product, tile: DeviceTile) -> Stmt:
    """One launch that computes ``product``. Tiles at an end overlap their neighbours, or are guarded."""
    return _Kernel(product, _fitted(product, tile)).emit()


def _fitted(product: Product, tile: DeviceTile) -> DeviceTile:
    """``tile``, smaller where the product is."""
    rows, columns = as_int(product.rows), as_int(product.columns)
    if rows is not None:
        count = -(-rows // tile.rows)
        # Tiles of equal size: 64 rows are 11 tiles of 6.
        tile = replace(tile, rows=-(-rows // count))
        threads = max(n for n in range(1, tile.row_threads + 1) if n == 1 or -(-count // n) * n < count * 1.2)
        tile = replace(tile, row_threads=threads)
    if columns is None:
        return tile
    threads = tile.column_threads
    choices = [
        replace(tile, vectors=v, column_threads=max(1, threads >> shift))
        for v in range(1, tile.vectors + 1)
        for shift in range(threads.bit_length())
    ]
    # A vector that is not all inside is read element by element.
    inside = [
        each for each in choices if each.lanes == 1 or product.right_overruns or _width(each) <= columns
    ]
    return min(inside or choices, key=lambda each: _cost(each, columns))


def _width(tile: DeviceTile) -> int:
    """Columns of a group."""
    return tile.lanes * tile.vectors * tile.column_threads


def _cost(tile: DeviceTile, columns: int) -> float:
    """What a step of the reduction over a row of tiles costs, in reads."""
    groups = -(-columns // _width(tile))
    # Where threads are lanes of a vector, fewer than eight leave it in part empty.
    threads = max(tile.column_threads * tile.row_threads, 8 // tile.lanes)
    return groups * threads * (tile.rows + tile.vectors + _MULTIPLY_ADD * tile.rows * tile.vectors)


class _Kernel:
    def __init__(self, product: Product, tile: DeviceTile) -> None:
        self.p, self.t = product, tile
        self.width = _width(tile)
        rows, columns = as_int(product.rows), as_int(product.columns)
        # Where there is a whole tile, the last is moved to end with the result.
        self.whole_rows = rows is not None and rows >= tile.rows
        self.whole_columns = columns is not None and columns >= self.width
        dtype = vector_dtype("float32", tile.lanes)
        self.sums = [self._array(tile.vectors, dtype, f"sums{r}") for r in range(tile.rows)]
        self.read = self._array(tile.vectors, dtype, "read")
        self.line = self._array(tile.lanes, "float32", "line")

    @staticmethod
    def _array(size: int, dtype: str, name: str) -> Expr:
        return tirx.decl_buffer([i64(size)], dtype, name=name, scope="local")

    def emit(self) -> Stmt:
        tile = self.t
        tiles = ceildiv(self.p.rows, tile.rows)
        row_groups = ceildiv(tiles, tile.row_threads)
        column_groups = ceildiv(self.p.columns, self.width)
        count = i64(1)
        for extent in self.p.batch:
            count = simplify(count * i64(extent))
        grid = [simplify(row_groups * count), column_groups]
        # TVM's simplifier divides by a number of tiles that it takes for 0 where the rows are symbolic.
        divisor = row_groups if as_int(row_groups) is not None else tirx.max(row_groups, i64(1))

        def thread(group: Sequence[Expr], lane: Expr) -> Stmt:
            across, bound = group[1], list[Stmt]()
            batch: list[Expr] = []
            one = as_int(count) == 1
            down = group[0] if one else floormod(group[0], divisor)
            left = i64(0) if one else floordiv(group[0], divisor)
            for extent in reversed(self.p.batch):
                place, more = bind("place", floormod(left, extent))
                batch.insert(0, place)
                bound += more
                left = floordiv(left, extent)
            row = (down * tile.row_threads + floordiv(lane, tile.column_threads)) * tile.rows
            column = across * self.width
            if self.whole_rows:
                row = minimum(row, self.p.rows - tile.rows)
            if self.whole_columns:
                column = minimum(column, self.p.columns - self.width)
            row, third = bind("row", row)
            column, fourth = bind("column", column + floormod(lane, tile.column_threads) * tile.lanes)
            return seq(bound, third, fourth, self._tile(batch, row, column))

        return launch_grid(grid, tile.row_threads * tile.column_threads, thread)

    def _tile(self, batch: Sequence[Expr], row: Expr, column: Expr) -> Stmt:
        declared = [tirx.AllocBuffer(each) for each in (*self.sums, self.read, self.line)]
        zero = broadcast(const_like(0.0, "float32"), self.t.lanes)
        cleared = [store(sums, zero, v) for sums in self.sums for v in range(self.t.vectors)]
        body = seq(declared, cleared, self._reduction(batch, row, column, ()), self._end(batch, row, column))
        return body if self.whole_rows else if_then(row < self.p.rows, body)

    def _reduction(self, batch: Sequence[Expr], row: Expr, column: Expr, steps: tuple[Expr, ...]) -> Stmt:
        if len(steps) < len(self.p.steps):
            extent = self.p.steps[len(steps)]

            def step(k: Expr) -> Stmt:
                return self._reduction(batch, row, column, (*steps, k))

            last = len(steps) == len(self.p.steps) - 1
            return self._unrolled(extent, step) if last else loop(extent, step, "k")
        statements: list[Stmt] = []
        for v in range(self.t.vectors):
            statements += self._read(batch, steps, self._column(column, v), v)
        for r, sums in enumerate(self.sums):
            at = row + r if self.whole_rows else minimum(row + r, i64(self.p.rows) - 1)
            factor, bound = bind("factor", self.p.left(batch, at, steps))
            statements += bound
            for v in range(self.t.vectors):
                product = broadcast(factor, self.t.lanes) * load(self.read, v)
                statements.append(store(sums, load(sums, v) + product, v))
        return seq(statements)

    def _unrolled(self, extent: Expr, step: Callable[[Expr], Stmt]) -> Stmt:
        """``step`` for each below ``extent``, several in an iteration where the number is constant."""
        count, unroll = as_int(extent), self.t.unroll
        if count is None:
            return loop(extent, step, "k")
        whole = count // unroll if count > unroll else 0
        rest = [step(i64(k)) for k in range(whole * unroll, count)]
        body = loop(whole, lambda k: seq([step(k * unroll + j) for j in range(unroll)]), "k")
        return seq(body, rest) if whole else seq(rest)

    def _column(self, column: Expr, vector: int) -> Expr:
        return simplify(column + vector * self.t.lanes * self.t.column_threads)

    def _read(self, batch: Sequence[Expr], steps: Sequence[Expr], column: Expr, vector: int) -> list[Stmt]:
        """Statements that read a vector of ``right``, element by element where it has to be."""
        lanes = self.t.lanes
        inside = self.whole_columns or self.p.right_overruns
        whole = self.p.right(batch, steps, column, lanes) if inside else None
        if whole is not None:
            return [store(self.read, whole, vector)]
        last = i64(self.p.columns) - 1
        at = [column + lane if inside else minimum(column + lane, last) for lane in range(lanes)]
        each = [self.p.right(batch, steps, place, 1) for place in at]
        if lanes == 1:
            return [store(self.read, each[0], vector)]
        gathered = [store(self.line, value, lane) for lane, value in enumerate(each)]
        line = tirx.BufferLoad(self.line, [tirx.Ramp(i64(0), i64(1), lanes)])
        return [*gathered, store(self.read, line, vector)]

    def _end(self, batch: Sequence[Expr], row: Expr, column: Expr) -> list[Stmt]:
        statements = []
        for r, sums in enumerate(self.sums):
            for v in range(self.t.vectors):
                done = self._vector_end(batch, row + r, self._column(column, v), load(sums, v))
                statements.append(done if self.whole_rows else if_then(row + r < self.p.rows, done))
        return statements

    def _vector_end(self, batch: Sequence[Expr], row: Expr, column: Expr, sums: Expr) -> Stmt:
        """Store a vector through memory of the thread: registers have no element of a variable number."""
        lanes = self.t.lanes
        if lanes == 1:
            return self._element_end(batch, row, column, sums)
        kept = tirx.BufferStore(self.line, sums, [tirx.Ramp(i64(0), i64(1), lanes)])
        return seq(
            kept, loop(lanes, lambda n: self._element_end(batch, row, column + n, load(self.line, n)), "lane")
        )

    def _element_end(self, batch: Sequence[Expr], row: Expr, column: Expr, value: Expr) -> Stmt:
        at, bound = bind("at", column)
        done = seq(bound, self.p.finish(batch, row, at, value))
        return done if self.whole_columns else if_then(column < self.p.columns, done)
