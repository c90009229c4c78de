"""The loops of a recurrence: steps outside, then panels of hidden units, then rows of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

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
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    parallel,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.math import Registers, with_registers
from assay.compile.schedules.recurrence import Cell, Phase, Recurrence, UnitLayout
from assay.compile.schedules.recurrent_cell import CellLane
from assay.compile.schedules.tiles import rows_that_fit

__all__ = ["SCHEDULED", "recurrent_function"]

# The attribute of a function that is made of loops already.
SCHEDULED = "assay.scheduled"

_UNROLL = 4


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One sequence of the batch at one step: its state's row, the time that it reads, whether it has one."""

    state: Expr
    batch: Expr
    step: Expr
    time: Expr
    valid: Expr | None


def recurrent_function(
    recurrence: Recurrence, layout: UnitLayout, time: int | Expr, batch: int | Expr,
    context: ScheduleContext,
) -> Expr:  # fmt: skip
    """The kernel that walks the steps of a recurrence, for ``time`` steps and ``batch`` sequences.

    It takes the projected inputs ``[T, B, D * N]``, recurrent weights ``[D, P, H, NR]`` for each phase, a
    bias ``[D, padded]`` where a gate has its own, then what there is of lengths ``[B]`` (int32) and first
    hidden and cell states ``[D, B, H]``. It writes Y ``[T, D, B, H]``, Y_h and, for LSTM, Y_c ``[D, B, H]``.
    """
    return _Emitter(recurrence, layout, time, batch, context).function()


class _Emitter:
    def __init__(
        self, recurrence: Recurrence, layout: UnitLayout, time: int | Expr, batch: int | Expr,
        context: ScheduleContext,
    ) -> None:  # fmt: skip
        self.r, self.layout, self.context = recurrence, layout, context
        # Variables of this function, whatever the caller calls the sizes.
        self.time = i64(time) if as_int(time) is not None else tirx.Var("steps", "int64")
        self.batch = i64(batch) if as_int(batch) is not None else tirx.Var("batch", "int64")
        self.expected_time, self.expected_batch = context.expected(time), context.expected(batch)
        self.directions = len(recurrence.reverse)
        self.params: list[Buffer] = []
        self.declarations: list[Stmt] = []
        hidden, padded = recurrence.hidden, layout.padded
        state = [self.directions, self.batch, hidden]
        self.inputs = self._param(
            "inputs", [self.time, self.batch, self.directions * recurrence.gates * padded]
        )
        self.weights = [
            self._param(
                f"weights{i}",
                [self.directions, layout.panels(phase), hidden, layout.width(phase)],
            )
            for i, phase in enumerate(recurrence.phases)
        ]
        own_bias = recurrence.separate_bias is not None
        self.bias = self._param("bias", [self.directions, padded]) if own_bias else None
        self.lengths = self._param("lengths", [self.batch], "int32") if recurrence.has_lengths else None
        self.first_hidden = self._param("initial_h", state) if recurrence.has_hidden else None
        self.first_cell = self._param("initial_c", state) if recurrence.has_cell else None
        self.y = self._param("y", [self.time, *state])
        self.y_h = self._param("y_h", state)
        self.y_c = self._param("y_c", state) if recurrence.cell is Cell.LSTM else None
        self.hidden = self._workspace("hidden", 2)
        self.cell = self._workspace("cell", 1) if recurrence.cell is Cell.LSTM else None
        two = len(recurrence.phases) == 2
        self.update = self._workspace("update", 1) if two else None
        self.reset = self._workspace("reset", 1) if two else None

    def _param(self, name: str, shape: Sequence[int | Expr], dtype: str = "float32") -> Buffer:
        buffer = tirx.decl_buffer([i64(s) for s in shape], dtype, name=name)
        view, declaration = flat_view(buffer)
        self.params.append(buffer)
        self.declarations.append(declaration)
        return view

    def _workspace(self, name: str, copies: int) -> Buffer:
        """A state ``[copies, D, B, padded]``; padding units compute on zeros."""
        size = simplify(self.batch * (copies * self.directions * self.layout.padded))
        buffer, allocation = allocate([size], "float32", name)
        self.declarations.append(allocation)
        return buffer

    def function(self) -> Expr:
        """The whole kernel."""
        body = seq(self.declarations, self._begin(), self._steps(), self._end())
        name = f"{self.r.cell.lower()}_steps"
        attributes = {"global_symbol": name, "tirx.noalias": True, SCHEDULED: True}
        function = tirx.PrimFunc(self.params, body)
        for key, value in attributes.items():
            function = function.with_attr(key, value)
        return function

    def _state_rows(self, body: Callable[[Expr], Stmt]) -> Stmt:
        return loop(self.batch * self.directions, body, "row")

    def _begin(self) -> Stmt:
        """Initial states, zeros where there are none, and zeros behind them."""
        hidden, padded = self.r.hidden, self.layout.padded
        states = [(self.hidden, self.first_hidden)]
        states += [(self.cell, self.first_cell)] if self.cell is not None else []

        def row(r: Expr) -> Stmt:
            statements = []
            for state, first in states:
                known = 0 if first is None else hidden
                if first is not None:
                    statements.append(_copy(first, r * hidden, state, r * padded, hidden))
                statements.append(_clear(state, r * padded + known, padded - known))
            return seq(statements)

        return self._state_rows(row)

    def _end(self) -> Stmt:
        """The last states."""
        hidden, padded = self.r.hidden, self.layout.padded
        last = floormod(self.time, 2) * (self.batch * (self.directions * padded))

        def row(r: Expr) -> Stmt:
            statements = [_copy(self.hidden, last + r * padded, self.y_h, r * hidden, hidden)]
            if self.y_c is not None:
                statements.append(_copy(self.cell, r * padded, self.y_c, r * hidden, hidden))
            return seq(statements)

        return self._state_rows(row)

    def _steps(self) -> Stmt:
        """The steps. Threads share the panels of each where that is much work, else the directions."""
        weights = self.directions * self.layout.padded * self.r.hidden * self.r.gates
        work = self.expected_batch * weights // 8
        if not self.context.is_small(work // len(self.r.phases)):
            every = None if self.directions > 1 else i64(0)
            return loop(self.time, lambda s: self._step(s, every, serial=False), "step")
        alone = self.directions == 1 or self.context.is_small(work * self.expected_time)
        return parallel(
            self.directions,
            lambda d: loop(self.time, lambda s: self._step(s, d, serial=True), "step"),
            "direction",
            serial=alone,
        )

    def _step(self, step: Expr, direction: Expr | None, *, serial: bool) -> Stmt:
        """One step of one direction, or of all."""
        return seq(*(self._phase(i, step, direction, serial) for i in range(len(self.r.phases))))

    def _phase(self, number: int, step: Expr, direction: Expr | None, serial: bool) -> Stmt:
        panels = self.layout.panels(self.r.phases[number])

        def unit(t: Expr) -> Stmt:
            if direction is not None:
                return self._panel(number, step, direction, t)
            d, first = bind("direction", floordiv(t, panels))
            p, second = bind("panel", floormod(t, panels))
            return seq(first, second, self._panel(number, step, d, p))

        count = panels * (self.directions if direction is None else 1)
        return parallel(count, unit, "panel", serial=serial)

    def _panel(self, phase: int, step: Expr, direction: Expr, panel: Expr) -> Stmt:
        """All rows of the batch for one panel of hidden units."""
        width = self.layout.width(self.r.phases[phase])
        height = max(1, min(rows_that_fit(self.context.unit, width), self.expected_batch))
        batch = as_int(self.batch)

        def tile(first: Expr, rows: int) -> Stmt:
            return self._tile(phase, step, direction, panel, first, rows)

        if batch is not None and batch <= height:
            return tile(i64(0), batch)
        full = floordiv(self.batch, height)
        statements = [loop(full, lambda t: tile(t * height, height), "rows")]
        left = floormod(self.batch, height)
        if as_int(left) != 0:
            first = simplify(full * height)
            rest = as_int(left)
            statements.append(
                tile(first, rest) if rest is not None else loop(left, lambda b: tile(first + b, 1), "row")
            )
        return seq(statements)

    def _row(self, step: Expr, direction: Expr, batch: Expr) -> tuple[_Row, list[Stmt]]:
        state, statements = bind("state", direction * self.batch + batch)
        last = self.time - 1
        valid = None
        if self.lengths is not None:
            length, more = bind("length", tirx.Cast("int64", load(self.lengths, batch)))
            statements += more
            last, valid = length - 1, step < length
        back = tirx.max(last - step, i64(0))
        if len(self.r.reverse) == 2:
            time = tirx.Select(direction > 0, back, step)
        else:
            time = back if self.r.reverse[0] else step
        at, more = bind("time", time)
        return _Row(state=state, batch=batch, step=step, time=at, valid=valid), [*statements, *more]

    def _tile(self, number: int, step: Expr, direction: Expr, panel: Expr, first: Expr, rows: int) -> Stmt:
        phase, lanes, hidden = self.r.phases[number], self.layout.lanes, self.r.hidden
        blocks, gates = self.layout.blocks_of(phase), len(phase.gates)
        width, padded = self.layout.width(phase), self.layout.padded
        statements: list[Stmt] = []
        sequences: list[_Row] = []
        parity, more = bind("before", floormod(step, 2) * (self.batch * (self.directions * padded)))
        statements += more
        accumulators = []
        for i in range(rows):
            row, more = self._row(step, direction, simplify(first + i))
            buffer, declaration = allocate([width], "float32", "gates", "local")
            sequences.append(row)
            accumulators.append(buffer)
            statements += [*more, declaration]
        for row, buffer in zip(sequences, accumulators, strict=True):
            for u in range(blocks):
                for g, gate in enumerate(phase.gates):
                    at = lanes_at((u * gates + g) * lanes, lanes)
                    start = self._start(row, direction, panel * blocks + u, gate)
                    statements.append(store(buffer, start, at))
        base, more = bind("base", (direction * self.layout.panels(phase) + panel) * (hidden * width))
        statements += more
        source = self.reset if phase.reset_state else self.hidden
        offset = i64(0) if phase.reset_state else parity

        def multiply(k: Expr) -> list[Stmt]:
            result = []
            for row, buffer in zip(sequences, accumulators, strict=True):
                state = broadcast(load(source, offset + row.state * padded + k), lanes)
                for v in range(blocks * gates):
                    at = lanes_at(v * lanes, lanes)
                    weight = load(self.weights[number], lanes_at(base + k * width + v * lanes, lanes))
                    result.append(store(buffer, load(buffer, at) + state * weight, at))
            return result

        whole = hidden // _UNROLL
        if whole:
            statements.append(
                loop(whole, lambda k: seq(*(multiply(k * _UNROLL + u) for u in range(_UNROLL))), "k")
            )
        for k in range(whole * _UNROLL, hidden):
            statements += multiply(i64(k))
        for row, buffer in zip(sequences, accumulators, strict=True):
            for u in range(blocks):
                own = (buffer, u * gates * lanes)
                statements.append(self._finish(phase, row, direction, panel * blocks + u, own, parity))
        return seq(statements)

    def _input(self, row: _Row, direction: Expr, block: Expr, gate: int) -> Expr:
        """Where a gate's projected inputs of one block of units start."""
        place = (row.time * self.batch + row.batch) * self.directions + direction
        unit = place * (self.layout.padded // self.layout.lanes) + block
        return (unit * self.r.gates + gate) * self.layout.lanes

    def _start(self, row: _Row, direction: Expr, block: Expr, gate: int) -> Expr:
        lanes, padded = self.layout.lanes, self.layout.padded
        if gate == self.r.separate_bias:
            return load(self.bias, lanes_at(direction * padded + block * lanes, lanes))
        return load(self.inputs, lanes_at(self._input(row, direction, block, gate), lanes))

    def _finish(
        self, phase: Phase, row: _Row, direction: Expr, block: Expr, gates: tuple[Buffer, int], before: Expr
    ) -> Stmt:
        """The cell on one block of units, whose gates are in a buffer from a position on; its outputs."""
        lanes, hidden, padded = self.layout.lanes, self.r.hidden, self.layout.padded
        unit, statements = bind("unit", block * lanes)
        at, more = bind("at", row.state * padded + unit)
        statements += more
        turn = self.batch * (self.directions * padded)
        after = simplify(turn - before)
        starts = [gates[1] + g * lanes for g in range(len(phase.gates))]
        last = phase == self.r.phases[-1]

        def compute(lane: Expr, registers: Registers) -> Stmt:
            own = CellLane(self, registers, [load(gates[0], i64(s) + lane) for s in starts])
            if self.r.cell is Cell.LSTM:
                own.lstm(at + lane, after)
            elif self.r.cell is Cell.RNN:
                own.rnn(at + lane, after)
            elif not last:
                own.gates_of_gru(at + lane, before)
            else:
                inner = self._input(row, direction, block, 2) + lane
                own.gru(at + lane, before, after, inner)
            return seq(own.statements)

        body = with_registers(lanes, compute)
        if not last:
            return seq(statements, body)

        def place(time: Expr) -> Expr:
            return ((time * self.directions + direction) * self.batch + row.batch) * hidden + unit

        done = seq(body, self._copy_out(place(row.time), unit, lambda j: load(self.hidden, after + at + j)))
        if row.valid is None:
            return seq(statements, done)
        kept = store(
            self.hidden, load(self.hidden, lanes_at(before + at, lanes)), lanes_at(after + at, lanes)
        )
        # Past the end of a sequence its state stays, and Y, at the time of the step itself, is 0.
        nothing = self._copy_out(place(row.step), unit, lambda j: const_like(0.0, "float32"))
        return seq(statements, if_then(row.valid, done, seq(kept, nothing)))

    def _copy_out(self, y: Expr, unit: Expr, value: Callable[[Expr], Expr]) -> Stmt:
        """Store the units of a block that exist."""
        lanes, hidden = self.layout.lanes, self.r.hidden
        whole = with_registers(lanes, lambda lane, _: store(self.y, value(lane), y + lane))
        if hidden % lanes == 0 and self.layout.padded == hidden:
            return whole
        left = tirx.max(i64(hidden) - unit, i64(0))
        part = loop(left, lambda j: store(self.y, value(j), y + j), "unit")
        return if_then(unit + lanes <= hidden, whole, part)


def _copy(source: Buffer, start: Expr, target: Buffer, at: Expr, count: int) -> Stmt:
    return loop(count, lambda j: store(target, load(source, start + j), at + j), "unit")


def _clear(target: Buffer, start: Expr, count: int) -> Stmt:
    return loop(count, lambda j: store(target, const_like(0.0, "float32"), start + j), "unit")
