"""Contractions of 8-bit integers on AMX tiles: 32 rows times 32 columns of 32-bit sums.

A tile register holds 16 rows of 64 bytes. ``tdpbusd`` adds to a tile of sums [16, 16] the product of a tile
of A [16, 64] (uint8) and one of B [16, 16, 4] (int8, 16 steps of four K of a panel). Four tiles of sums share
two of A and two of B, which is every register. See the chapter on AMX in Intel's "Architecture Instruction
Set Extensions Programming Reference", which also has the layout of the configuration.

Rows of A are copied first, each with its whole reduction in one piece, as Goto and van de Geijn pack A
("Anatomy of High-Performance Matrix Multiplication", 2008): a convolution's rows are no tile in memory.

A machine without AMX takes the same walk with plain loops in the place of the instructions: that proves
addresses and bounds, not the instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction
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
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    load,
    loop,
    minimum,
    parallel,
    prefetch,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.math import with_registers
from assay.compile.schedules.multiply_add import MultiplyAdd, element_bytes
from assay.compile.schedules.packed_rows import QUAD, TILE_DEPTH, PackedRows
from assay.compile.schedules.panel_fetch import stays_near
from assay.compile.schedules.tile_store import fetch_tile
from assay.compile.targets.target import DotProduct, VectorUnit

__all__ = ["PANEL_WIDTH", "configuration", "emit_tiles", "fits_tiles", "takes_tiles"]

_ROWS, _COLS = 16, 16
_BLOCK = 2 * _ROWS
PANEL_WIDTH = 2 * _COLS
_PANEL_ROW = PANEL_WIDTH * QUAD  # bytes
_CONFIGURATION = 64  # bytes
_PALETTE = 1
# Where a configuration has the bytes of a row, two bytes for each tile, and the rows, one byte for each.
_ROW_BYTES, _ROW_COUNT = 16, 48
# The tiles: sums by (half of the rows, half of the columns), then halves of A's rows and of B's columns.
_SUMS, _LEFT, _RIGHT = ((0, 1), (2, 3)), (4, 5), (6, 7)
# Cache lines of B in a step of a block.
_LINES = TILE_DEPTH // QUAD * _PANEL_ROW // CACHE_LINE
# Tasks to share between threads, where there are that many.
_FEWEST_TASKS = 4


def takes_tiles(unit: VectorUnit, rows: int, groups: int = 1) -> bool:
    """Whether a contraction of ``rows`` expected rows is worth tiles, and tiles can take it."""
    return unit.dot in (DotProduct.AMX, DotProduct.TILES) and rows >= _ROWS and groups == 1


def fits_tiles(contraction: Contraction, form: MultiplyAdd, context: ScheduleContext) -> bool:
    """Whether a contraction whose panels are as wide as two tiles can be emitted here."""
    return (
        as_int(contraction.groups) == 1
        and takes_tiles(context.unit, context.expected(contraction.rows))
        and contraction.panel_width == PANEL_WIDTH
        and form.depth == QUAD
        and element_bytes(contraction.a) == 1
        and as_int(contraction.depth) is not None
        and contraction.order is None
    )


def emit_tiles(contraction: Contraction, epilogue: Epilogue, context: ScheduleContext) -> Stmt:
    """All tasks, shared between threads: a chunk of the rows, and all panels or a group of them."""
    layout = PackedRows.of(contraction)
    expected_rows = context.expected(contraction.rows)
    panels = -(-context.expected(contraction.cols) // PANEL_WIDTH)
    weight_bytes = panels * layout.depth * PANEL_WIDTH
    chunk = _chunk_rows(layout, expected_rows, weight_bytes, context.unit.l2_bytes)
    chunks = -(-expected_rows // chunk)
    near = stays_near(weight_bytes, context.unit.l2_bytes)
    machine = _Machine(
        layout=layout,
        b=contraction.b,
        amx=context.unit.dot is DotProduct.AMX,
        fetched=0 if near else -(-_LINES * _BLOCK // chunk),
    )
    emitter = _Emitter(
        contraction=contraction,
        epilogue=epilogue,
        context=context,
        machine=machine,
        chunk=chunk,
        together=-(-panels // min(panels, -(-_FEWEST_TASKS // chunks))),
    )
    operations = expected_rows * context.expected(contraction.cols) * layout.depth
    serial = context.is_small(operations // 64)
    row_chunks = simplify(tirx.max(ceildiv(contraction.rows, chunk), i64(1)))
    count = simplify(row_chunks * emitter.groups)
    return seq(epilogue.declare_views(), parallel(count, emitter.task, "task", serial=serial))


@dataclass(frozen=True, kw_only=True)
class _Emitter:
    """Emits tasks of ``chunk`` rows and ``together`` panels."""

    contraction: Contraction
    epilogue: Epilogue
    context: ScheduleContext
    machine: _Machine
    chunk: int
    together: int

    @property
    def panels(self) -> Expr:
        """Panels of B."""
        return ceildiv(self.contraction.cols, PANEL_WIDTH)

    @property
    def groups(self) -> Expr:
        """Groups of panels, each of which copies its rows itself."""
        return ceildiv(self.panels, self.together)

    def task(self, number: Expr) -> Stmt:
        """Copy a chunk of rows, and multiply its blocks by each panel of a group."""
        layout = self.machine.layout
        first_panel, first = bind("first_panel", floormod(number, self.groups) * self.together)
        row, second = bind("row", floordiv(number, self.groups) * self.chunk)
        count, third = bind("count", minimum(i64(self.contraction.rows) - row, self.chunk))
        rows, declaration = allocate([self.chunk * layout.stride], "uint8", "rows", "local")
        sums, more = allocate([_BLOCK * PANEL_WIDTH], "int32", "sums", "local")

        def blocks(panel: Expr) -> Stmt:
            return loop(
                ceildiv(count, _BLOCK),
                lambda t: self._block(rows, sums, panel, row, t * _BLOCK, count),
                "block",
            )

        return seq(
            first, second, third, declaration, more,
            loop(count, lambda r: layout.copy(self.contraction, row + r, rows, r * layout.stride), "r"),
            self.machine.begin(),
            loop(
                minimum(self.panels - first_panel, self.together),
                lambda offset: blocks(simplify(first_panel + offset)),
                "panel",
            ),
            self.machine.end(),
        )  # fmt: skip

    def _block(self, rows: Buffer, sums: Buffer, panel: Expr, row: Expr, at: Expr, count: Expr) -> Stmt:
        """The block ``at`` rows behind ``row``, which is the first of ``count``, times one panel."""
        left, bound = bind("left", minimum(count - at, _BLOCK))
        b, where = bind("b_panel", self.contraction.b_offset(i64(0), panel))

        def fetch(r: Expr) -> Stmt:
            return seq(fetch_tile(self.contraction, self.epilogue, 1, i64(0), panel, row + at + r))

        product = self.machine.multiply(rows, at, b, sums, left)
        kept = _store(self.contraction, self.epilogue, self.context, sums, panel, row + at, left)
        return seq(bound, where, loop(left, fetch, "r"), product, kept)


def _chunk_rows(layout: PackedRows, rows: int, weight_bytes: int, l2_bytes: int) -> int:
    """Rows of a task: one block where L2 holds B, else as many as L2 holds, so that B comes by seldom."""
    if weight_bytes <= l2_bytes // 2:
        return _BLOCK
    blocks = -(-rows // _BLOCK)
    most = max(1, l2_bytes // 2 // (layout.stride * _BLOCK))
    return -(-blocks // -(-blocks // most)) * _BLOCK


def configuration(depth: int) -> list[int]:
    """The 64 bytes of a configuration for tiles of ``depth`` bytes of K, at most 64 and divisible by 4."""
    content = [0] * _CONFIGURATION
    content[0] = _PALETTE
    shapes = {
        **dict.fromkeys((*_SUMS[0], *_SUMS[1]), (_ROWS, _COLS * QUAD)),
        **dict.fromkeys(_LEFT, (_ROWS, depth)),
        **dict.fromkeys(_RIGHT, (depth // QUAD, _COLS * QUAD)),
    }
    for tile, (count, row_bytes) in shapes.items():
        content[_ROW_COUNT + tile] = count
        content[_ROW_BYTES + 2 * tile] = row_bytes
    return content


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """Emits the steps of K, with AMX or with loops that do the same.

    ``fetched``: cache lines of the next panel that a step of a block asks for.
    """

    layout: PackedRows
    b: Buffer
    amx: bool
    fetched: int

    def begin(self) -> list[Stmt]:
        """Load the configuration."""
        if not self.amx:
            return []
        memory, declaration = allocate([_CONFIGURATION], "uint8", "configuration", "local")
        stores = [
            store(memory, const_like(byte, "uint8"), i)
            for i, byte in enumerate(configuration(self.layout.tile_depth))
        ]
        return [declaration, *stores, _instruction("ldtilecfg", _address(memory, i64(0)))]

    def end(self) -> list[Stmt]:
        """Give the tiles back."""
        return [_instruction("tilerelease")] if self.amx else []

    def multiply(self, rows: Buffer, row: Expr, b: Expr, sums: Buffer, left: Expr) -> list[Stmt]:
        """Leave in ``sums`` [32, 32] the product of 32 rows from ``row`` on and the panel at ``b``.

        Only the first ``left`` rows mean something.
        """
        at = row * self.layout.stride
        ahead = b + self.layout.depth * PANEL_WIDTH + floordiv(row, _BLOCK) * (self.fetched * CACHE_LINE)
        panel_tile = TILE_DEPTH // QUAD * _PANEL_ROW
        skipped = (TILE_DEPTH - self.layout.rest) // QUAD * _PANEL_ROW if self.layout.rest else 0
        step = self._tiles if self.amx else self._loops
        if self.amx:
            statements = [_instruction("tilezero", _tile(tile)) for pair in _SUMS for tile in pair]
        else:
            zero = const_like(0, "int32")
            statements = [loop(_BLOCK * PANEL_WIDTH, lambda i: store(sums, zero, i), "clear")]
        statements += [*self._fetch(ahead), *step(rows, at, b, sums, left)]
        if self.layout.tiles > 1:
            statements.append(
                loop(
                    self.layout.tiles - 1,
                    lambda k: seq(
                        self._fetch(ahead + (k + 1) * panel_tile),
                        step(rows, at + (k + 1) * TILE_DEPTH, b + (k + 1) * panel_tile - skipped, sums, left),
                    ),
                    "k",
                )
            )
        if self.amx:
            statements += [
                _instruction(
                    "tilestored64",
                    _tile(_SUMS[i][j]),
                    _address(sums, i64(i * _ROWS * PANEL_WIDTH + j * _COLS)),
                    i64(4 * PANEL_WIDTH),
                )
                for i in (0, 1)
                for j in (0, 1)
            ]
        return statements

    def _fetch(self, ahead: Expr) -> list[Stmt]:
        return [prefetch(self.b, ahead + line * CACHE_LINE) for line in range(self.fetched)]

    def _tiles(self, rows: Buffer, a: Expr, b: Expr, sums: Buffer, left: Expr) -> list[Stmt]:
        stride = self.layout.stride
        loads = [
            _instruction("tileloadd64", _tile(tile), _address(rows, a + i * (_ROWS * stride)), i64(stride))
            for i, tile in enumerate(_LEFT)
        ]
        loads += [
            _instruction(
                "tileloadd64", _tile(tile), _address(self.b, b + j * (_COLS * QUAD)), i64(_PANEL_ROW)
            )
            for j, tile in enumerate(_RIGHT)
        ]
        return loads + [
            _instruction("tdpbusd", _tile(_SUMS[i][j]), _tile(_LEFT[i]), _tile(_RIGHT[j]))
            for i in (0, 1)
            for j in (0, 1)
        ]

    def _loops(self, rows: Buffer, a: Expr, b: Expr, sums: Buffer, left: Expr) -> list[Stmt]:
        def product(r: Expr, k: Expr, n: Expr) -> Stmt:
            value = tirx.Cast("int32", load(rows, a + r * self.layout.stride + k))
            at = b + floordiv(k, QUAD) * _PANEL_ROW + n * QUAD + floormod(k, QUAD)
            weight = tirx.Cast("int32", load(self.b, at))
            total = r * PANEL_WIDTH + n
            return store(sums, load(sums, total) + value * weight, total)

        return [
            loop(
                left,
                lambda r: loop(
                    self.layout.tile_depth,
                    lambda k: loop(PANEL_WIDTH, lambda n: product(r, k, n), "n"),
                    "part",
                ),
                "r",
            )
        ]


def _instruction(name: str, *operands: Any) -> Stmt:
    return tirx.Evaluate(tirx.call_llvm_intrin("void", f"llvm.x86.{name}", *operands))


def _tile(number: int) -> Expr:
    return tirx.IntImm("int8", number)


def _address(buffer: Buffer, offset: Expr) -> Expr:
    return tirx.address_of(load(buffer, offset))


def _store(
    contraction: Contraction,
    epilogue: Epilogue,
    context: ScheduleContext,
    sums: Buffer,
    panel: Expr,
    row: Expr,
    rows: Expr,
) -> Stmt:
    """Run the epilogue on the sums that exist."""
    lanes = min(context.unit.lanes(), PANEL_WIDTH)

    def element(r: Expr, col: Expr, registers: Any) -> Stmt:
        at = panel * PANEL_WIDTH + col
        index, flat = contraction.out_index(i64(0), row + r, at), contraction.out_flat(i64(0), row + r, at)
        return seq(epilogue.emit(index, flat, load(sums, r * PANEL_WIDTH + col), registers))

    def full(r: Expr) -> Stmt:
        return seq(
            *(
                with_registers(lanes, lambda lane, registers, j=j: element(r, i64(j) + lane, registers))  # type: ignore[misc]
                for j in range(0, PANEL_WIDTH, lanes)
            )
        )

    def partial(r: Expr) -> Stmt:
        left = simplify(i64(contraction.cols) - panel * PANEL_WIDTH)
        return loop(
            left, lambda col: with_registers(1, lambda _, registers: element(r, col, registers)), "col"
        )

    whole = loop(rows, full, "r")
    if as_int(floormod(contraction.cols, PANEL_WIDTH)) == 0:
        return whole
    return if_then((panel + 1) * PANEL_WIDTH <= i64(contraction.cols), whole, loop(rows, partial, "r"))
