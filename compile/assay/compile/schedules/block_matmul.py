"""Products of quantized activations with block-quantized weights, which are read once in the order of memory.

For few rows, the codes go from memory straight into the products of all rows. For many, a panel's codes are
spread to one a byte in a buffer of the thread first, and its scales widened to float32; tiles of rows then
walk that. The integer sums of a block are exact; blocks are added in float32, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tvm import tirx

from assay.compile.schedules.block_dot import BlockDot, block_dot
from assay.compile.schedules.block_format import SPAN, BlockFormat, Offset
from assay.compile.schedules.block_panel import Lets, Packed, Panel, Spread
from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction
from assay.compile.schedules.dynamic_shares import parallel_by_turns
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    broadcast,
    ceildiv,
    const_like,
    flat_view,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    minimum,
    parallel,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.register_tile import row_tiles
from assay.compile.schedules.tile_store import store_tile

__all__ = ["emit_block_matmul"]

# Rows that are multiplied with codes straight from memory, at most, and how many of them at once.
_FEW, _TILE_ROWS = 8, 4
# Rows that walk one panel after it was spread.
_CHUNK = 256
# Sums of a tile whose steps are written out, at most; quads of a step of larger tiles, by bits of a code.
_UNROLLED = 4
_QUADS = {4: 4, 8: 2}


def emit_block_matmul(
    function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext
) -> Stmt:
    """Every leading dimension of the activations counts as rows."""
    form = BlockFormat.from_text(str(anchor.annotations["assay.format"]))
    x, packed = _operands(anchor)
    x_flat, first = flat_view(x)
    w_flat, second = flat_view(packed)
    leading = list(x.ty.shape)[:-1]
    rows = i64(1)
    for extent in leading:
        rows = rows * i64(extent)
    emitter = _Emitter(
        form=form, x=x_flat, weights=w_flat, rows=simplify(rows), leading=leading, epilogue=epilogue,
        context=context,
    )  # fmt: skip
    return seq(first, second, epilogue.declare_views(), emitter.emit())


def _operands(block: Block) -> tuple[Buffer, Buffer]:
    """The quantized activations (int8) and the packed weights (uint8)."""
    found = {str(access.source.ty.dtype): access.source for access in loads_of(block.value)}
    return found["int8"], found["uint8"]


@dataclass(kw_only=True)
class _Emitter:
    form: BlockFormat
    x: Buffer
    weights: Buffer
    rows: Expr
    leading: Sequence[Expr]
    epilogue: Epilogue
    context: ScheduleContext

    @cached_property
    def dot(self) -> BlockDot:
        return block_dot(self.context.unit, self.form.bits, self.form.lanes)

    def emit(self) -> Stmt:
        """The form for few rows, that for many, or a choice between them at run time."""
        known = as_int(self.rows)
        if known is not None:
            return self._few() if known <= _FEW else self._many()
        return if_then(self.rows <= _FEW, self._few(), self._many())

    def _packed(self, panel: Expr) -> Packed:
        return Packed(form=self.form, weights=self.weights, panel=panel, unit=self.context.unit)

    def _few(self) -> Stmt:
        """Threads take contiguous runs of panels; all rows meet a panel while it is near."""
        most = self.context.unit.registers // 2

        def panel(p: Expr) -> Stmt:
            def tile(row: Expr, height: int) -> Stmt:
                size = self._divisor(most // height)
                return seq(
                    *(
                        self._tile(self._packed(p), height, v, size, row, p)
                        for v in range(0, self.form.vectors, size)
                    )
                )

            return row_tiles(self.rows, _TILE_ROWS, tile)

        # Reading a byte takes about as long as a third of a scalar operation.
        size = self.form.panels * self.form.blocks * self.form.block_bytes
        return parallel(self.form.panels, panel, "panel", serial=self.context.is_small(size // 3))

    def _many(self) -> Stmt:
        """Units of a few vectors of a panel times a chunk of rows."""
        height, vectors = self._tile_shape()
        parts = self.form.vectors // vectors
        chunks = ceildiv(self.rows, _CHUNK)

        def unit(u: Expr) -> Stmt:
            place, first = bind("place", floordiv(u, chunks))
            chunk, second = bind("chunk", floormod(u, chunks))
            panel, third = bind("panel", floordiv(place, parts))
            start, fourth = bind("start", chunk * _CHUNK)
            count, fifth = bind("count", minimum(self.rows - start, _CHUNK))

            def part(number: int) -> Stmt:
                spread, filled = Spread.fill(self._packed(panel), number * vectors, vectors)
                tiles = row_tiles(
                    count, height,
                    lambda row, size: self._tile(spread, size, number * vectors, vectors, start + row, panel),
                )  # fmt: skip
                return seq(filled, tiles)

            which = floormod(place, parts)
            body = [if_then(tirx.EQ(which, i64(n)), part(n)) for n in range(parts)]
            return seq(first, second, third, fourth, fifth, body)

        # A vector has the products of 32 numbers and takes about two cycles with all that belongs to it.
        products = max(self.context.expected(self.rows), _FEW) * self.form.cols * self.form.depth
        units = simplify(chunks * (self.form.panels * parts))
        return parallel_by_turns(units, unit, "unit", serial=self.context.is_small(products // 16))

    def _divisor(self, most: int) -> int:
        """The most vectors of a panel, not above ``most``, that share it evenly."""
        return max(
            n for n in range(1, self.form.vectors + 1) if self.form.vectors % n == 0 and n <= max(most, 1)
        )

    def _tile_shape(self) -> tuple[int, int]:
        """Rows and vectors of a tile of many rows: half of the registers for its sums."""
        unit, vectors = self.context.unit, self._divisor(4)
        return max(1, unit.registers // (2 if unit.fma else 4) // vectors), vectors

    def _tile(self, panel: Panel, height: int, first: int, count: int, row: Expr, number: Expr) -> Stmt:
        """``height`` rows from ``row`` times ``count`` vectors of a panel from ``first`` on."""
        form, lanes = self.form, self.form.lanes
        made = [allocate([count * lanes], "float32", "accumulators", "local") for _ in range(height)]
        tile = _Tile(
            panel=panel, dot=self.dot, form=form, x=self.x, vectors=range(first, first + count),
            accumulators=[buffer for buffer, _ in made],
        )  # fmt: skip
        statements: list[Stmt] = [declaration for _, declaration in made]
        for i in range(height):
            at, more = bind("x_row", (row + i) * form.activations.row_bytes)
            tile.rows.append(at)
            statements += more
        zero = broadcast(const_like(0.0, "float32"), lanes)
        for buffer, _ in made:
            statements += [store(buffer, zero, lanes_at(j * lanes, lanes)) for j in range(count)]
        statements.append(loop(form.blocks, tile.block, "block"))
        place = number * (form.vectors // count) + first // count
        outputs = self._outputs(count * lanes)
        kept = store_tile(outputs, self.epilogue, lanes, tile.accumulators, i64(0), place, row)
        columns = form.panels * form.vectors * lanes
        if columns - form.cols < count * lanes:
            return seq(statements, kept)
        # The last panel has tiles of columns that do not exist.
        return if_then(place * (count * lanes) < form.cols, seq(statements, kept))

    def _outputs(self, width: int) -> Contraction:
        """Where the results of a tile go."""
        return Contraction(
            groups=1,
            rows=self.rows,
            cols=self.form.cols,
            a=self.x,
            a_offset=lambda group, row: row * self.form.activations.row_bytes,
            reduction=(),
            depth=self.form.depth,
            a_row_bytes=self.form.activations.row_bytes,
            b=self.weights,
            b_offset=lambda group, panel: panel,
            panel_width=width,
            out_index=lambda group, row, col: [*_unflatten(row, self.leading), col],
            out_flat=lambda group, row, col: row * self.form.cols + col,
        )


@dataclass(kw_only=True)
class _Tile:
    """Some rows times some vectors of a panel; the accumulators are float32."""

    panel: Panel
    dot: BlockDot
    form: BlockFormat
    x: Buffer
    vectors: range
    accumulators: list[Buffer]
    rows: list[Expr] = field(default_factory=list)

    def block(self, block: Expr) -> Stmt:
        """The products of one block, added to the accumulators."""
        lets = Lets()
        base = lets.keep(simplify(self.panel.base(block)), "base")
        spans = -(-self.form.block // SPAN)
        if spans == 1:
            sums = self._span(lets, base, block * self.form.block, i64(0), self.form.block)
            return seq(lets.statements, self._finish(base, block, sums))
        made = [allocate([self._width], "int32", "sums", "local") for _ in self.rows]
        zero = broadcast(const_like(0, "int32"), self.form.lanes)
        start = [store(buffer, zero, self._at(v)) for buffer, _ in made for v in self.vectors]

        def span(s: Expr) -> Stmt:
            inner = Lets()
            first = block * self.form.block + s * SPAN
            totals = self._span(inner, base, first, s * (SPAN // 4 // self.panel.quads), SPAN)
            added = [
                store(made[i][0], load(made[i][0], self._at(v)) + total, self._at(v))
                for (i, v), total in totals.items()
            ]
            return seq(inner.statements, added)

        sums = {(i, v): load(made[i][0], self._at(v)) for i in range(len(self.rows)) for v in self.vectors}
        return seq(
            lets.statements,
            [d for _, d in made],
            start,
            loop(spans, span, "span"),
            self._finish(base, block, sums),
        )

    @property
    def _width(self) -> int:
        return len(self.vectors) * self.form.lanes

    def _at(self, vector: int) -> Expr:
        return lanes_at((vector - self.vectors.start) * self.form.lanes, self.form.lanes)

    def _span(
        self, lets: Lets, base: Expr, first: Expr, step: Expr, length: int
    ) -> dict[tuple[int, int], Expr]:
        """int32 sums of ``length`` K: activations from ``first`` on, codes from ``step`` of the block on."""
        steps = length // 4 // self.panel.quads
        totals: dict[tuple[int, int], Expr] = {}
        if len(self.rows) * len(self.vectors) <= _UNROLLED:
            for s in range(steps):
                self._step(lets, base, first, step, s, totals)
        else:
            totals = self._walk(lets, base, first, step)
        return {place: lets.keep(self.dot.sums(total), "sums") for place, total in totals.items()}

    def _step(
        self,
        lets: Lets,
        base: Expr,
        first: Expr,
        step: Expr,
        s: int | Expr,
        totals: dict[tuple[int, int], Expr],
    ) -> None:
        """One step of a span, added to ``totals``."""
        quads = self.panel.quads
        xs = [
            [lets.keep(self._quad(at + first + (s * quads + q) * 4), "x") for at in self.rows]
            for q in range(quads)
        ]
        for v in self.vectors:
            for q, codes in enumerate(self.panel.codes(lets, base, step + s, v)):
                weights = [lets.keep(part, "weights") for part in self.dot.prepare(codes)]
                for i in range(len(self.rows)):
                    total = self.dot.add(totals.get((i, v)), weights, xs[q][i])
                    totals[i, v] = lets.keep(total, "total")

    def _walk(self, lets: Lets, base: Expr, first: Expr, step: Expr) -> dict[tuple[int, int], Expr]:
        """The steps of a span in a loop whose length LLVM does not know.

        Where it is written out, LLVM finishes one sum after the other, for which it wants all operands of a
        span in registers.
        """
        kind, lanes = self.dot.total, self.dot.total_lanes
        made = [allocate([lanes * len(self.vectors)], kind, "total", "local") for _ in self.rows]
        places = {
            (i, v): (made[i][0], lanes_at((v - self.vectors.start) * lanes, lanes))
            for i in range(len(self.rows))
            for v in self.vectors
        }
        zero = broadcast(const_like(0, kind), lanes)
        lets.statements += [declaration for _, declaration in made]
        lets.statements += [store(buffer, zero, at) for buffer, at in places.values()]

        def one(s: Expr) -> Stmt:
            inner = Lets()
            totals = {place: load(buffer, at) for place, (buffer, at) in places.items()}
            for part in range(together):
                self._step(inner, base, first, step, s * together + part, totals)
            stores = [store(places[p][0], total, places[p][1]) for p, total in totals.items()]
            return seq(inner.statements, stores)

        together = min(_QUADS[self.form.bits], self.form.activations.quads) // self.panel.quads
        quads = lets.keep(self._word(self.rows[0], self.form.activations.quads_at, i64(0), "int32"), "quads")
        lets.statements.append(loop(floordiv(i64(quads), self.panel.quads * together), one, "step"))
        return {place: load(buffer, at) for place, (buffer, at) in places.items()}

    def _quad(self, at: Expr) -> Expr:
        """Four activations in every lane."""
        return broadcast(tirx.reinterpret("int32", load(self.x, lanes_at(at, 4))), self.form.lanes)

    def _word(self, row: Expr, at: int, block: Expr, dtype: str) -> Expr:
        return tirx.reinterpret(dtype, load(self.x, lanes_at(row + at + block * 4, 4)))

    def _finish(self, base: Expr, block: Expr, sums: dict[tuple[int, int], Expr]) -> Stmt:
        """Scales and offsets: the sums of the block added to the accumulators."""
        form, lanes, activations = self.form, self.form.lanes, self.form.activations
        lets = Lets()
        scales = {v: lets.keep(self.panel.scale(base, v), "scale") for v in self.vectors}
        offsets = {}
        if form.offset is not Offset.CONSTANT:
            offsets = {v: lets.keep(self.panel.offset(base, v), "offset") for v in self.vectors}
        stores = []
        for i, row in enumerate(self.rows):
            scale = broadcast(lets.keep(self._word(row, activations.codes, block, "float32")), lanes)
            total = lets.keep(self._word(row, activations.sums_at, block, "int32"), "sum")
            # What the form takes off every code is not always what the format does.
            less = (form.zero_point if form.offset is Offset.CONSTANT else 0) - self.dot.bias
            correction = broadcast(lets.keep(total * const_like(-less, "int32")), lanes) if less else None
            for v in self.vectors:
                whole = sums[i, v] if correction is None else sums[i, v] + correction
                value = tirx.Cast(f"float32x{lanes}", whole)
                if form.offset is Offset.ZERO_POINT:
                    value = value - offsets[v] * broadcast(tirx.Cast("float32", total), lanes)
                result = load(self.accumulators[i], self._at(v)) + value * (scales[v] * scale)
                if form.offset is Offset.MINIMUM:
                    scaled = self._word(row, activations.scaled_sums_at, block, "float32")
                    result = result + offsets[v] * broadcast(scaled, lanes)
                stores.append(store(self.accumulators[i], result, self._at(v)))
        return seq(lets.statements, stores)


def _unflatten(position: Expr, extents: Sequence[Expr]) -> list[Expr]:
    """The index of a row-major position in ``extents``."""
    index: list[Expr] = []
    for extent in reversed(extents[1:]):
        index.insert(0, floormod(position, extent))
        position = floordiv(position, extent)
    return [position, *index]
