"""Some rows of quantized activations times some vectors of a panel of block-quantized weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx

from assay.compile.schedules.assembly import LlvmFunction, address
from assay.compile.schedules.block_dot import BlockDot
from assay.compile.schedules.block_format import SPAN, BlockFormat, Offset
from assay.compile.schedules.block_panel import Lets, Panel
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    broadcast,
    const_like,
    floordiv,
    i64,
    lanes_at,
    load,
    loop,
    prefetch,
    seq,
    simplify,
    store,
)

__all__ = ["BlockTile"]

# Sums of a tile whose steps are written out, at most; quads of a step of larger tiles, by bits of a code.
_UNROLLED = 4
_QUADS = {4: 4, 8: 2}


@dataclass(kw_only=True)
class BlockTile:
    """Some rows times some vectors of a panel; the accumulators are float32."""

    panel: Panel
    dot: BlockDot
    form: BlockFormat
    x: Buffer
    vectors: range
    accumulators: list[Buffer]
    rows: list[Expr] = field(default_factory=list)

    def clear(self) -> list[Stmt]:
        """Nothing summed yet."""
        zero = broadcast(const_like(0.0, "float32"), self.form.lanes)
        return [store(sums, zero, self._at(v)) for sums in self.accumulators for v in self.vectors]

    def restore(self, kept: Buffer, row: Expr) -> list[Stmt]:
        """The sums that ``keep`` put into ``kept`` from ``row`` on."""
        return [
            store(sums, load(kept, self._kept_at(row + i, v)), self._at(v))
            for i, sums in enumerate(self.accumulators)
            for v in self.vectors
        ]

    def keep(self, kept: Buffer, row: Expr) -> list[Stmt]:
        """The sums into ``kept``, flat rows as wide as the tile, from ``row`` on."""
        return [
            store(kept, load(sums, self._at(v)), self._kept_at(row + i, v))
            for i, sums in enumerate(self.accumulators)
            for v in self.vectors
        ]

    def _kept_at(self, row: Expr, vector: int) -> Expr:
        lanes = self.form.lanes
        return lanes_at(row * self._width + (vector - self.vectors.start) * lanes, lanes)

    def fetch_scales_below(self, block: Expr) -> list[Stmt]:
        """Ask for what the next tile's rows have beside codes from ``block`` on."""
        form, height = self.form.activations, len(self.rows)
        places = [at + height * form.row_bytes + block * 4 for at in self.rows]
        return [
            prefetch(self.x, at + part, near=True)
            for at in places
            for part in (form.codes, form.scaled_sums_at)
        ]

    def fetch_codes_below(self, block: Expr) -> list[Stmt]:
        """Ask for the codes of a block of the next tile's rows."""
        form, height = self.form.activations, len(self.rows)
        start = height * form.row_bytes + block * form.block
        return [prefetch(self.x, at + start, near=True) for at in self.rows]

    def call(self, walk: LlvmFunction, kept: Buffer, row: Expr, begin: Expr, blocks: Expr) -> Stmt:
        """The products of ``blocks`` blocks from ``begin`` on, added to ``kept`` as ``keep`` fills it."""
        place = self.panel.place(begin)
        assert place is not None, "a function walks codes that are one a byte"
        form = self.form.activations
        call = walk.call(
            i64(blocks),
            address(kept, row * self._width),
            address(self.x, self.rows[0] + begin * form.block),
            address(self.x, self.rows[0] + form.codes + begin * 4),
            place,
        )
        return tirx.Evaluate(call)

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
