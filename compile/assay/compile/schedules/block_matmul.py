"""Products of quantized activations with block-quantized weights, which are read once in the order of memory.

For few rows, the codes go from memory straight into the products of all rows. For many, a panel's codes are
spread to one a byte in a buffer of the thread first, and its scales widened to float32; tiles of rows then
walk that. Each asks for what is not near yet: the places of its results, the next rows, a share of another
panel. The integer sums of a block are exact; blocks are added in float32, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tvm import tirx

from assay.compile.schedules.assembly import LlvmFunction, importing
from assay.compile.schedules.block_dot import BlockDot, block_dot
from assay.compile.schedules.block_format import BlockFormat
from assay.compile.schedules.block_panel import Packed, Panel, Spread
from assay.compile.schedules.block_tile import BlockTile
from assay.compile.schedules.block_walk import block_walk
from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction
from assay.compile.schedules.dynamic_shares import parallel_by_turns
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.ir import (
    CACHE_LINE,
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    ceildiv,
    flat_view,
    floordiv,
    floormod,
    i64,
    if_then,
    loop,
    minimum,
    parallel,
    prefetch,
    seq,
    simplify,
    unflatten,
)
from assay.compile.schedules.register_tile import row_tiles
from assay.compile.schedules.tile_store import store_tile

__all__ = ["emit_block_matmul"]

# Rows that are multiplied with codes straight from memory, at most, and how many of them at once.
_FEW, _TILE_ROWS = 8, 4
# Rows that walk one panel after it was spread.
_CHUNK = 256
# Bytes of a spread panel that stay in L1 beside activations and sums; of rows that L2 does not hold.
_NEAR_BYTES, _FAR_BYTES = 24 << 10, 256 << 10
# Elements of a buffer that lies on the heap, at least.
_LEAST_BUFFER = 512
# Which panel is asked for during another: two threads take every second one.
_PANELS_AHEAD = 2


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
    emitted = seq(first, second, epilogue.declare_views(), emitter.emit())
    return importing(emitter.functions.values(), emitted)


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
    functions: dict[str, LlvmFunction] = field(default_factory=dict)

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
        vectors = self._divisor(4)
        parts = self.form.vectors // vectors
        chunks = ceildiv(self.rows, _CHUNK)

        def unit(u: Expr) -> Stmt:
            place, first = bind("place", floordiv(u, chunks))
            chunk, second = bind("chunk", floormod(u, chunks))
            panel, third = bind("panel", floordiv(place, parts))
            start, fourth = bind("start", chunk * _CHUNK)
            count, fifth = bind("count", minimum(self.rows - start, _CHUNK))
            which = floormod(place, parts)
            body = [
                if_then(tirx.EQ(which, i64(n)), self._unit(panel, n * vectors, vectors, start, count))
                for n in range(parts)
            ]
            return seq(first, second, third, fourth, fifth, body)

        # A vector has the products of 32 numbers and takes about two cycles with all that belongs to it.
        products = max(self.context.expected(self.rows), _FEW) * self.form.cols * self.form.depth
        units = simplify(chunks * (self.form.panels * parts))
        return parallel_by_turns(units, unit, "unit", serial=self.context.is_small(products // 16))

    def _unit(self, panel: Expr, first: int, vectors: int, start: Expr, count: Expr) -> Stmt:
        """``count`` rows from ``start`` times ``vectors`` of a panel from ``first`` on.

        K is cut into parts of which the spread panel stays in L1; the sums of a part wait for the next one.
        """
        form, packed = self.form, self._packed(panel)
        cuts = -(-form.blocks * Spread.bytes_of_block(form, vectors) // _NEAR_BYTES)
        each = -(-form.blocks // cuts)
        cuts = -(-form.blocks // each)
        spread, allocation = Spread.allocated(form, first, vectors, each)
        statements = [allocation]
        height, sums = self._height(vectors), None
        if cuts > 1 or self._walk(height, vectors) is not None:
            # Nothing smaller is sure to be aligned.
            rows = _CHUNK if cuts > 1 else height
            size = max(rows * vectors * form.lanes, _LEAST_BUFFER)
            sums, declaration = allocate([size], "float32", "sums")
            statements.append(declaration)

        def part(number: Expr) -> Stmt:
            begin, one = bind("first_block", number * each)
            blocks, two = bind("blocks", minimum(form.blocks - begin, each))
            own = spread.starting(begin)

            def tile(row: Expr, height: int) -> Stmt:
                share = _Share(begin=begin, blocks=blocks, sums=sums, row=row if cuts > 1 else i64(0))
                fetched = self._fetch_panel(panel + _PANELS_AHEAD, number, cuts, floordiv(row, height))
                return seq(fetched, self._tile(own, height, first, vectors, start + row, panel, share))

            tiles = row_tiles(count, height, tile)
            return seq(one, two, own.fill(packed, begin, blocks), tiles)

        return seq(statements, loop(cuts, part, "cut"))

    def _fetch_panel(self, panel: Expr, cut: Expr, cuts: int, tile: Expr) -> list[Stmt]:
        """A tile's share of asking for a panel."""
        tiles = _CHUNK // self._height(self._divisor(4))
        size = self.form.blocks * self.form.block_bytes
        lines = -(-size // (CACHE_LINE * cuts * tiles))
        first = panel * size + (cut * tiles + tile) * (lines * CACHE_LINE)
        return [prefetch(self.weights, first + n * CACHE_LINE) for n in range(lines)]

    def _divisor(self, most: int) -> int:
        """The most vectors of a panel, not above ``most``, that share it evenly."""
        return max(
            n for n in range(1, self.form.vectors + 1) if self.form.vectors % n == 0 and n <= max(most, 1)
        )

    def _height(self, vectors: int) -> int:
        """Rows of a tile of many rows: half of the registers for its sums."""
        unit = self.context.unit
        return max(1, unit.registers // (2 if unit.fma else 4) // vectors)

    def _tile(
        self, panel: Panel, height: int, first: int, count: int, row: Expr, number: Expr,
        share: _Share | None = None,
    ) -> Stmt:  # fmt: skip
        """``height`` rows from ``row`` times ``count`` vectors of a panel from ``first`` on."""
        form, lanes = self.form, self.form.lanes
        width = count * lanes
        made = [allocate([width], "float32", "accumulators", "local") for _ in range(height)]
        tile = BlockTile(
            panel=panel, dot=self.dot, form=form, x=self.x, vectors=range(first, first + count),
            accumulators=[buffer for buffer, _ in made],
        )  # fmt: skip
        statements: list[Stmt] = [declaration for _, declaration in made]
        for i in range(height):
            at, more = bind("x_row", (row + i) * form.activations.row_bytes)
            tile.rows.append(at)
            statements += more
        place = number * (form.vectors // count) + first // count
        kept = store_tile(self._outputs(width), self.epilogue, lanes, tile.accumulators, i64(0), place, row)
        if share is None:
            statements += [*tile.clear(), loop(form.blocks, tile.block, "block"), kept]
        else:
            outputs = [
                self.epilogue.fetch((row + i) * form.cols + place * width, width) for i in range(height)
            ]
            statements.append(self._share(tile, share, seq(*outputs), kept))
        columns = form.panels * form.vectors * lanes
        if columns - form.cols < width:
            return seq(statements)
        # The last panel has tiles of columns that do not exist.
        return if_then(place * width < form.cols, seq(statements))

    def _share(self, tile: BlockTile, share: _Share, fetched: Stmt, kept: Stmt) -> Stmt:
        """A tile's products with a part of K; the last part's results go where ``kept`` puts them."""
        begin, sums = share.begin, share.sums
        walk = self._walk(len(tile.rows), len(tile.vectors))
        if walk is not None and sums is not None:
            first = if_then(tirx.EQ(begin, i64(0)), seq(fetched, tile.clear(), tile.keep(sums, share.row)))
            last = begin + share.blocks >= self.form.blocks
            scales = tile.fetch_scales_below(begin) if self._far else []
            products = tile.call(walk, sums, share.row, begin, share.blocks)
            return seq(first, scales, products, if_then(last, seq(tile.restore(sums, share.row), kept)))
        start = seq(fetched, tile.clear())
        if sums is not None:
            start = if_then(tirx.EQ(begin, i64(0)), start, seq(tile.restore(sums, share.row)))
            last = begin + share.blocks >= self.form.blocks
            kept = if_then(last, kept, seq(tile.keep(sums, share.row)))

        def block(b: Expr) -> Stmt:
            return seq(tile.fetch_codes_below(begin + b) if self._far else [], tile.block(begin + b))

        scales = tile.fetch_scales_below(begin) if self._far else []
        return seq(start, scales, loop(share.blocks, block, "block"), kept)

    @property
    def _far(self) -> bool:
        """Rows that L2 holds come soon enough by themselves."""
        return self.form.activations.row_bytes * _CHUNK > _FAR_BYTES

    def _walk(self, rows: int, vectors: int) -> LlvmFunction | None:
        """The function for the blocks of a tile, where there is one."""
        walk = block_walk(self.context.unit, self.dot, self.form, rows=rows, vectors=vectors, far=self._far)
        if walk is not None:
            self.functions[walk.name] = walk
        return walk

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
            out_index=lambda group, row, col: [*unflatten(row, self.leading), col],
            out_flat=lambda group, row, col: row * self.form.cols + col,
        )


@dataclass(frozen=True, kw_only=True)
class _Share:
    """Some blocks of K, from ``begin`` on, for a tile of many rows.

    ``sums`` keeps what the blocks before gave, the tile's from ``row`` on; None where these are all blocks.
    """

    begin: Expr
    blocks: Expr
    sums: Buffer | None
    row: Expr
