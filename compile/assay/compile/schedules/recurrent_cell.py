"""The arithmetic of one hidden unit's cell, once its gates are summed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvm import tirx

from assay.compile.schedules.ir import Buffer, Expr, Stmt, const_like, load, store
from assay.compile.schedules.math import Registers, vector_math

if TYPE_CHECKING:
    from assay.compile.schedules.recurrent_kernel import _Emitter

__all__ = ["CellLane"]


class CellLane:
    """The arithmetic of one hidden unit of one sequence, inside a loop over the lanes."""

    def __init__(self, emitter: _Emitter, registers: Registers, gates: Sequence[Expr]) -> None:
        self.e, self.registers, self.gates = emitter, registers, gates
        self.statements: list[Stmt] = []

    def _keep(self, value: Expr) -> Expr:
        steps, value = vector_math(value, self.registers)
        self.statements += steps
        return self.registers.keep(value, self.statements)

    def _activate(self, which: int, value: Expr) -> Expr:
        name = self.e.r.activations[which]
        if name == "Relu":
            return self._keep(tirx.max(value, const_like(0.0, "float32")))
        return self._keep((tirx.sigmoid if name == "Sigmoid" else tirx.tanh)(self._keep(value)))

    def _put(self, buffer: Buffer, value: Expr, at: Expr) -> None:
        self.statements.append(store(buffer, value, at))

    def lstm(self, at: Expr, after: Expr) -> None:
        """c = f * c + i * g; h = o * tanh(c)."""
        i, o, f = (self._activate(0, self.gates[n]) for n in range(3))
        candidate = self._activate(1, self.gates[3])
        cell = self._keep(f * load(self.e.cell, at) + i * candidate)
        self._put(self.e.cell, cell, at)
        self._put(self.e.hidden, o * self._activate(2, cell), after + at)

    def rnn(self, at: Expr, after: Expr) -> None:
        """h = tanh(W x + R h)."""
        self._put(self.e.hidden, self._activate(0, self.gates[0]), after + at)

    def gates_of_gru(self, at: Expr, before: Expr) -> None:
        """z, and the state that r lets through."""
        self._put(self.e.update, self._activate(0, self.gates[0]), at)
        reset = self._activate(0, self.gates[1])
        self._put(self.e.reset, reset * load(self.e.hidden, before + at), at)

    def gru(self, at: Expr, before: Expr, after: Expr, inner: Expr) -> None:
        """h = (1 - z) * candidate + z * h."""
        if self.e.r.linear_before_reset:
            z, reset = (self._activate(0, self.gates[n]) for n in range(2))
            candidate = self._activate(1, load(self.e.inputs, inner) + reset * self.gates[2])
        else:
            z, candidate = load(self.e.update, at), self._activate(1, self.gates[0])
        old = load(self.e.hidden, before + at)
        self._put(self.e.hidden, candidate + z * (old - candidate), after + at)
