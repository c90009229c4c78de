"""Matrix products of 8-bit integers on AMX tiles: 16 rows times 32 columns of 32-bit sums.

A tile register holds 16 rows of 64 bytes. ``tdpbusd`` adds to a tile of sums [16, 16] the product of a tile
of A [16, 64] (uint8, as it lies in memory) and one of B [16, 16, 4] (int8, 16 steps of four K of a panel).
See the chapter on AMX in Intel's "Architecture Instruction Set Extensions Programming Reference", which also
has the layout of the configuration. One configuration has tiles for the whole steps of K and for what is left
of it, and is loaded for every 16 rows, which also clears the sums.

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
    seq,
    simplify,
    store,
)
from assay.compile.schedules.math import with_registers
from assay.compile.schedules.multiply_add import MultiplyAdd, element_bytes
from assay.compile.targets.target import DotProduct, VectorUnit

__all__ = ["PANEL_WIDTH", "configuration", "emit_tiles", "fits_tiles", "takes_tiles"]

_ROWS, _COLS, _QUAD = 16, 16, 4
_STEP = 64  # K of a whole tile
PANEL_WIDTH = 2 * _COLS
_PANEL_ROW = PANEL_WIDTH * _QUAD  # bytes
_CONFIGURATION = 64  # bytes
_PALETTE = 1
# Where a configuration has the bytes of a row, two bytes for each tile, and the rows, one byte for each.
_ROW_BYTES, _ROW_COUNT = 16, 48
# The tiles: two of sums; one of A and two of B for whole steps, and the same for the rest of K.
_SUMS, _WHOLE, _REST = (0, 1), (2, 4, 5), (3, 6, 7)


def takes_tiles(unit: VectorUnit, rows: int, depth: int | None) -> bool:
    """Whether a product of ``rows`` expected rows and K = ``depth`` is worth tiles, and tiles can take it."""
    able = unit.dot in (DotProduct.AMX, DotProduct.TILES)
    return able and rows >= _ROWS and depth is not None and depth % _QUAD == 0


def fits_tiles(contraction: Contraction, form: MultiplyAdd, context: ScheduleContext) -> bool:
    """Whether a contraction whose panels are as wide as two tiles can be emitted here."""
    return (
        takes_tiles(context.unit, context.expected(contraction.rows), as_int(contraction.depth))
        and contraction.panel_width == PANEL_WIDTH
        and form.depth == _QUAD
        and element_bytes(contraction.a) == 1
        and not contraction.reduction
    )


def emit_tiles(contraction: Contraction, epilogue: Epilogue, context: ScheduleContext) -> Stmt:
    """All tasks: sixteen rows and one panel each, shared between threads."""
    panels = ceildiv(contraction.cols, PANEL_WIDTH)
    row_tiles = simplify(tirx.max(ceildiv(contraction.rows, _ROWS), i64(1)))
    machine = _Machine(contraction=contraction, amx=context.unit.dot is DotProduct.AMX)

    def task(number: Expr) -> Stmt:
        panel, first = bind("panel", floordiv(number, row_tiles))
        row, second = bind("row", floormod(number, row_tiles) * _ROWS)
        rows, third = bind("rows", minimum(i64(contraction.rows) - row, _ROWS))
        sums, declaration = allocate([_ROWS * PANEL_WIDTH], "int32", "sums", "local")
        statements = machine.multiply(sums, panel, row, rows)
        kept = _store(contraction, epilogue, context, sums, panel, row, rows)
        return seq(first, second, third, declaration, statements, kept)

    operations = context.expected(contraction.rows) * context.expected(contraction.cols)
    serial = context.is_small(operations * context.expected(contraction.depth) // 64)
    views = epilogue.declare_views()
    return seq(views, parallel(simplify(panels * row_tiles), task, "task", serial=serial))


def configuration(rows: int | Expr, rest: int) -> list[int | Expr]:
    """The 64 bytes of a configuration for ``rows`` rows of A and a K that leaves ``rest``, divisible by 4."""
    content: list[int | Expr] = [0] * _CONFIGURATION
    content[0] = _PALETTE
    shapes: dict[int, tuple[int | Expr, int]] = dict.fromkeys(_SUMS, (rows, _COLS * _QUAD))
    for (left, *right), depth in ((_WHOLE, _STEP), (_REST, rest)):
        if depth:
            shapes[left] = (rows, depth)
            shapes |= dict.fromkeys(right, (depth // _QUAD, _COLS * _QUAD))
    for tile, (count, row_bytes) in shapes.items():
        content[_ROW_COUNT + tile] = count
        content[_ROW_BYTES + 2 * tile] = row_bytes
    return content


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """Emits the steps of K, with AMX or with loops that do the same."""

    contraction: Contraction
    amx: bool

    def multiply(self, sums: Buffer, panel: Expr, row: Expr, rows: Expr) -> list[Stmt]:
        """Statements that leave A[row : row + rows] times the panel in ``sums`` [16, 32]."""
        depth = as_int(self.contraction.depth)
        assert depth is not None
        a, first = bind("a_tile", self.contraction.a_offset(i64(0), row))
        b, second = bind("b_tile", self.contraction.b_offset(i64(0), panel))
        whole, rest = depth // _STEP, depth % _STEP
        statements = [*first, *second, *self._begin(sums, rows, rest)]
        if whole:
            statements.append(
                loop(
                    whole,
                    lambda k: seq(
                        self._step(sums, a + k * _STEP, b + k * (_STEP // _QUAD * _PANEL_ROW), rows, _STEP)
                    ),
                    "k",
                )
            )
        if rest:
            a_end, b_end = a + whole * _STEP, b + whole * (_STEP // _QUAD * _PANEL_ROW)
            statements += self._step(sums, a_end, b_end, rows, rest)
        return statements + self._end(sums)

    def _begin(self, sums: Buffer, rows: Expr, rest: int) -> list[Stmt]:
        if not self.amx:
            zero = const_like(0, "int32")
            return [loop(_ROWS * PANEL_WIDTH, lambda i: store(sums, zero, i), "clear")]
        memory, declaration = allocate([_CONFIGURATION], "uint8", "configuration", "local")
        height = tirx.Cast("uint8", rows)
        stores = [
            store(memory, const_like(byte, "uint8") if isinstance(byte, int) else byte, i)
            for i, byte in enumerate(configuration(height, rest))
        ]
        return [declaration, *stores, _instruction("ldtilecfg", _address(memory, i64(0)))]

    def _step(self, sums: Buffer, a: Expr, b: Expr, rows: Expr, depth: int) -> list[Stmt]:
        """Add the product of ``depth`` K from the positions ``a`` and ``b``."""
        if not self.amx:
            return [self._step_of_loops(sums, a, b, rows, depth)]
        left, *right = _WHOLE if depth == _STEP else _REST
        stride = self._stride()
        loads = [_instruction("tileloadd64", _tile(left), _address(self.contraction.a, a), stride)]
        for number, tile in enumerate(right):
            place = _address(self.contraction.b, b + number * (_COLS * _QUAD))
            loads.append(_instruction("tileloadd64", _tile(tile), place, i64(_PANEL_ROW)))
        products = [
            _instruction("tdpbusd", _tile(total), _tile(left), _tile(tile))
            for total, tile in zip(_SUMS, right, strict=True)
        ]
        return loads + products

    def _step_of_loops(self, sums: Buffer, a: Expr, b: Expr, rows: Expr, depth: int) -> Stmt:
        stride = self._stride()

        def product(r: Expr, k: Expr, n: Expr) -> Stmt:
            left = tirx.Cast("int32", load(self.contraction.a, a + r * stride + k))
            at = b + floordiv(k, _QUAD) * _PANEL_ROW + n * _QUAD + floormod(k, _QUAD)
            right = tirx.Cast("int32", load(self.contraction.b, at))
            total = r * PANEL_WIDTH + n
            return store(sums, load(sums, total) + left * right, total)

        return loop(
            rows,
            lambda r: loop(depth, lambda k: loop(PANEL_WIDTH, lambda n: product(r, k, n), "n"), "part"),
            "r",
        )

    def _stride(self) -> Expr:
        """Bytes between rows of A."""
        first, second = (self.contraction.a_offset(i64(0), i64(row)) for row in (0, 1))
        return simplify(second - first)

    def _end(self, sums: Buffer) -> list[Stmt]:
        if not self.amx:
            return []
        stores = [
            _instruction(
                "tilestored64", _tile(tile), _address(sums, i64(number * _COLS)), i64(4 * PANEL_WIDTH)
            )
            for number, tile in enumerate(_SUMS)
        ]
        return [*stores, _instruction("tilerelease")]


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
