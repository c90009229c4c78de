"""The register-tile micro-kernel that GEMM, batched GEMM and direct convolution share.

MR x NR accumulators stay in registers while K is walked once; B comes in panels ``[K, NR]`` that were packed
ahead, each element of A is broadcast; the epilogue runs on the tile before it is stored (the structure of
Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008, and of BLIS).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tvm import tirx

from assay.compile.schedules.assembly import LlvmFunction, address, importing
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction, StepOrder
from assay.compile.schedules.depth_blocks import DepthBlock, choose_block_depth, walk_depth_blocks
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.integer_step import integer_step
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
from assay.compile.schedules.multiply_add import FLOAT32, element_bytes, unit_for
from assay.compile.schedules.panel_fetch import (
    PanelFetch,
    cheap_to_stream,
    plan_fetch,
    stays_near,
    walk_and_fetch,
)
from assay.compile.schedules.panel_order import panel_order
from assay.compile.schedules.register_tile import leftover_rows
from assay.compile.schedules.tile_store import fetch_tile, store_tile
from assay.compile.schedules.tiles import choose_tile

__all__ = ["emit_contraction", "emit_rows_of_panel"]

_Step: TypeAlias = Callable[[Sequence[Expr], Expr, int], list[Stmt]]

# Units to share between threads, where there is that much work.
_MIN_UNITS = 8


def emit_contraction(contraction: Contraction, epilogue: Epilogue, context: ScheduleContext) -> Stmt:
    """The loops around the micro-kernel: units (row chunk, panel) in parallel, row tiles inside."""
    emitter = _Emitter(contraction, epilogue, context)
    emitted = emitter.emit()
    return importing(emitter.functions.values(), emitted)


class _Emitter:
    def __init__(self, contraction: Contraction, epilogue: Epilogue, context: ScheduleContext) -> None:
        self.c = contraction
        self.epilogue = epilogue
        self.context = context
        self.lanes = min(context.unit.lanes(), contraction.panel_width)
        self.expected_rows = context.expected(contraction.rows)
        self.total_depth = i64(contraction.depth)
        for extent, _ in contraction.reduction:
            self.total_depth = self.total_depth * extent
        self.expected_depth = context.expected(self.total_depth)
        self.tile = choose_tile(
            unit_for(contraction.multiply_add, context.unit),
            self.expected_rows,
            contraction.panel_width,
            as_int(contraction.depth),
            rows=context.choice.rows,
            unroll=context.choice.unroll,
        )
        self.functions: dict[str, LlvmFunction] = {}
        self.block_depth = self._block_depth()
        self.walked_depth = self.block_depth or self.expected_depth

    def emit(self) -> Stmt:
        """All units of all groups; a unit is one panel of B times one chunk of rows.

        Panels go in groups that L3 feeds once: within a group every chunk of rows meets every panel, panels
        fastest. Threads take contiguous runs of units, so their shares differ by one unit at most.
        """
        panels = ceildiv(self.c.cols, self.c.panel_width)
        chunk = self._chunk_rows(self.context.expected(panels) * self.context.expected(self.c.groups))
        # At least one, also where a symbolic size could be zero: they are divided by.
        panels = simplify(tirx.max(panels, i64(1)))
        chunks = simplify(tirx.max(ceildiv(self.c.rows, chunk), i64(1)))
        per_group = simplify(panels * chunks)
        panel_bytes = element_bytes(self.c.b) * self.expected_depth * self.c.panel_width
        place = panel_order(panels, chunks, panel_bytes, self.context.unit.l2_bytes)

        def unit(t: Expr, block: DepthBlock | None = None) -> Stmt:
            group, first = bind("group", floordiv(t, per_group))
            inner, second = bind("inner", floormod(t, per_group))
            panel, chunk_number, third = place(inner)
            start, fourth = bind("start", chunk_number * chunk)
            return seq(first, second, third, fourth, self._chunk(group, panel, start, chunk, block))

        operations = self.expected_rows * self.context.expected(self.c.cols) * self.expected_depth
        serial = self.context.is_small(operations * self.context.expected(self.c.groups) // 8)
        views = self.epilogue.declare_views()
        units = simplify(per_group * i64(self.c.groups))
        if self.block_depth is None:
            return seq(views, parallel(units, unit, "unit", serial=serial))
        sums, allocation = allocate([panels * i64(self.c.rows) * self.c.panel_width], "float32", "sums")
        depth = as_int(self.c.depth)
        assert depth is not None
        blocks = walk_depth_blocks(
            depth,
            self.block_depth,
            sums,
            lambda block: parallel(units, lambda t: unit(t, block), "unit", serial=serial),
        )
        return seq(views, allocation, blocks)

    def _block_depth(self) -> int | None:
        """Steps of K in one block where K is walked in several, else None."""
        depth = as_int(self.c.depth)
        plain = not self.c.reduction and self.c.order is None and self.c.multiply_add is FLOAT32
        if depth is None or not plain or as_int(self.c.groups) != 1:
            return None
        return choose_block_depth(depth, self.expected_rows, self.context.unit.l2_bytes, self.tile.unroll)

    def _chunk_rows(self, panels: int) -> int:
        """Rows of one chunk, a multiple of the tile's: their part of A stays cached while the panels pass by.

        In L2, beside one panel, so that the panels come from beyond as seldom as can be. Where L2 holds all
        panels, a convolution's rows stay in L1 instead: their taps share most of what they read.
        """
        chosen = self.context.choice.chunk_rows
        if chosen is not None:
            return -(-chosen // self.tile.rows) * self.tile.rows
        unit = self.context.unit
        panel_bytes = element_bytes(self.c.b) * self.walked_depth * self.c.panel_width
        all_panels = element_bytes(self.c.b) * self.expected_depth * self.context.expected(self.c.cols)
        room = max(unit.l2_bytes * 3 // 4 - panel_bytes, unit.l2_bytes // 4)
        row_bytes = max(self.c.a_row_bytes * self.walked_depth // self.expected_depth, 1)
        if self.c.reduction and cheap_to_stream(all_panels, unit.l2_bytes):
            room = unit.l1_bytes * 3 // 4
            row_bytes *= self.c.reduction[0][0]
        in_cache = room // row_bytes
        wanted = -(-self.expected_rows * panels // _MIN_UNITS)
        rows = max(self.tile.rows, min(in_cache, max(wanted, 4 * self.tile.rows)))
        # Chunks of one height, so that no thread gets the short one alone.
        chunks = -(-self.expected_rows // rows)
        tiles = -(-self.expected_rows // (chunks * self.tile.rows))
        return max(1, tiles) * self.tile.rows

    def _chunk(
        self, group: Expr, panel: Expr, start: Expr, chunk: int, block: DepthBlock | None = None
    ) -> Stmt:
        height = self.tile.rows
        rows = as_int(self.c.rows)
        if rows is not None and rows <= height:
            return self._tile(group, panel, i64(0), rows, block=block)
        fetch = self._fetch_of(min(chunk, self.expected_rows) // height)
        count, statements = bind("count", minimum(i64(self.c.rows) - start, chunk))
        full, more = bind("full", floordiv(count, height))
        statements += more

        def row_tile(t: Expr) -> Stmt:
            return self._tile(group, panel, start + t * height, height, fetch.at(t) if fetch else None, block)

        statements.append(loop(full, row_tile, "row_tile"))
        first, more = bind("first", start + full * height)
        statements += more
        if rows is not None:
            if rows % height:
                tail = self._tile(group, panel, first, rows % height, block=block)
                statements.append(if_then(count > full * height, tail))
        else:
            left = simplify(count - full * height)
            statements += leftover_rows(
                left, height, lambda at, size: self._tile(group, panel, first + at, size, block=block)
            )
        return seq(statements)

    def _fetch_of(self, tiles: int) -> PanelFetch | None:
        """How each of ``tiles`` row tiles of a panel brings its share of the next panel near."""
        size = element_bytes(self.c.b)
        panel = self.expected_depth * self.c.panel_width
        panels = self.context.expected(ceildiv(self.c.cols, self.c.panel_width))
        everything = size * panel * panels * self.context.expected(self.c.groups)
        near = stays_near(everything, self.context.unit.l2_bytes) or as_int(self.c.depth) is None
        walked = self.walked_depth * self.c.panel_width
        return plan_fetch(elements=walked, element_bytes=size, ahead=panel, tiles=tiles, near=near)

    def _tile(
        self,
        group: Expr,
        panel: Expr,
        row: Expr,
        height: int,
        fetch: PanelFetch | None = None,
        block: DepthBlock | None = None,
    ) -> Stmt:
        width, lanes = self.c.panel_width, self.lanes
        vectors = width // lanes
        # One array a row: TVM keeps only small ones on the stack, from where LLVM takes them to registers.
        form = self.c.multiply_add
        rows = [allocate([width], form.accumulator, "accumulators", "local") for _ in range(height)]
        accumulators = [buffer for buffer, _ in rows]
        statements: list[Stmt] = []
        offsets: list[Expr] = []
        for i in range(height):
            offset, more = bind(f"a_row{i}", self.c.a_offset(group, row + i) + (block.start if block else 0))
            statements += more
            offsets.append(offset)
        skipped = block.start * width if block else 0
        base, more = bind("b_panel", self.c.b_offset(group, panel) + skipped)
        statements += [*more, *(declaration for _, declaration in rows)]
        zero = broadcast(const_like(0, form.accumulator), lanes)
        places = [(i, j) for i in range(height) for j in range(vectors)]

        def kept(block: DepthBlock, i: int, j: int) -> tuple[Buffer, Expr]:
            place = (panel * i64(self.c.rows) + row + i) * width + j * lanes
            return block.sums, lanes_at(place, lanes)

        for i, j in places:
            start = load(*kept(block, i, j)) if block and block.resumes else zero
            statements.append(store(accumulators[i], start, lanes_at(j * lanes, lanes)))

        def step(a_extra: Sequence[Expr], b_row: Expr, count: int) -> list[Stmt]:
            """Steps of K taken together, of each of which ``count`` exist: one sum for every accumulator."""
            function = self._step_function(height, vectors, len(a_extra)) if count == form.depth else None
            if function is not None:
                call = function.call(
                    *(address(buffer, 0) for buffer in accumulators),
                    *(address(self.c.a, offset) for offset in offsets),
                    *(address(self.c.a, offsets[0] + extra) for extra in a_extra),
                    address(self.c.b, base + b_row * (width * form.depth)),
                )
                return [tirx.Evaluate(call)]
            result = []
            for i, j in places:
                at = lanes_at(j * lanes, lanes)
                a = [form.left(self.c.a, offsets[i] + extra, lanes, count) for extra in a_extra]
                b = [
                    form.right(self.c.b, base + ((b_row + v) * width + j * lanes) * form.depth, lanes)
                    for v in range(len(a))
                ]
                total = form.add(load(accumulators[i], at), a, b, lanes)
                result.append(store(accumulators[i], total, at))
            return result

        if not block or block.ends:
            statements += fetch_tile(self.c, self.epilogue, height, group, panel, row)
        depth = block.depth if block else self.c.depth
        statements.append(self._reduction(step, group, panel, base, fetch, depth))
        if block and not block.ends:
            for i, j in places:
                sums, at = kept(block, i, j)
                statements.append(store(sums, load(accumulators[i], lanes_at(j * lanes, lanes)), at))
        else:
            stored = store_tile(self.c, self.epilogue, self.lanes, accumulators, group, panel, row)
            statements.append(stored)
        return seq(statements)

    def _step_function(self, rows: int, vectors: int, together: int) -> LlvmFunction | None:
        """The function for a step of a tile, where there is one."""
        unit = self.context.unit
        if 32 * self.lanes != unit.bits:
            return None
        found = integer_step(unit, self.c.multiply_add, rows=rows, vectors=vectors, together=together)
        if found is not None:
            self.functions[found.name] = found
        return found

    def _reduction(
        self,
        step: _Step,
        group: Expr,
        panel: Expr,
        base: Expr,
        fetch: PanelFetch | None,
        depth: int | Expr,
    ) -> Stmt:
        """Walk K: the outer reduction loops, then the contiguous one, unrolled; or in the order given."""
        if self.c.order is not None:
            return self._ordered(self.c.order, step, group, panel)
        unroll, each = self.tile.unroll, self.c.multiply_add.depth
        steps, rest = floordiv(depth, each), floormod(depth, each)
        odd = as_int(rest)
        assert odd is not None, "a form that takes several K a step needs a constant depth"
        rows = simplify(steps + (1 if odd else 0))

        def one(a_extra: Expr, b_row: Expr, k: Expr) -> list[Stmt]:
            return step([a_extra + k * each], b_row + k, each)

        def unrolled(a_extra: Expr, b_row: Expr, k: Expr) -> Stmt:
            return seq(*(one(a_extra, b_row, k * unroll + u) for u in range(unroll)))

        def innermost(a_extra: Expr, b_row: Expr, walk: Expr) -> Stmt:
            blocks = floordiv(steps, unroll)
            known = as_int(blocks)
            body = []
            if fetch is not None and known:
                body.append(
                    walk_and_fetch(
                        fetch,
                        self.c.b,
                        base,
                        blocks=known,
                        walk=walk,
                        walks=math.prod(extent for extent, _ in self.c.reduction),
                        block=lambda k: unrolled(a_extra, b_row, k),
                    )
                )
            elif known != 0:
                body.append(loop(blocks, lambda k: unrolled(a_extra, b_row, k), "k"))
            left = floormod(steps, unroll)
            if as_int(left) != 0:
                done = simplify(blocks * unroll)
                body.append(loop(left, lambda k: seq(one(a_extra, b_row, done + k)), "k_tail"))
            if odd:
                body.append(seq(step([a_extra + steps * each], b_row + steps, odd)))
            return seq(body)

        def nest(level: int, a_extra: Expr, b_row: Expr) -> Stmt:
            if level == len(self.c.reduction):
                return innermost(a_extra, simplify(b_row * rows), b_row)
            extent, stride = self.c.reduction[level]
            return loop(
                extent, lambda r: nest(level + 1, a_extra + r * stride, b_row * extent + r), f"r{level}"
            )

        return nest(0, i64(0), i64(0))

    def _ordered(self, order: StepOrder, step: _Step, group: Expr, panel: Expr) -> Stmt:
        """All steps of a panel, each where its offset says, as many together as the order allows."""
        depth, done = self.c.multiply_add.depth, 0
        base, statements = bind("first_step", order.first(group, panel))

        def together(size: int, done: int, t: Expr) -> Stmt:
            first, more = bind("step", t * size + done)
            extras: list[Expr] = []
            for v in range(size):
                extra, offset = bind("extra", i64(load(order.offsets, base + first + v)) * order.unit)
                more += offset
                extras.append(extra)
            return seq(more, step(extras, first, depth))

        for size, count in order.sizes:
            if count:
                statements.append(
                    loop(count, lambda t, size=size, done=done: together(size, done, t), "steps")  # type: ignore[misc]
                )
            done += size * count
        return seq(statements)


def emit_rows_of_panel(
    contraction: Contraction, epilogue: Epilogue, context: ScheduleContext, group: Expr, panel: Expr
) -> Stmt:
    """The tiles of all rows of one panel, one after the other; ``contraction.rows`` is constant."""
    rows = as_int(contraction.rows)
    assert rows is not None
    emitter = _Emitter(contraction, epilogue, context)
    emitted = emitter._chunk(group, panel, i64(0), rows)
    return importing(emitter.functions.values(), emitted)
