"""A panel of an operand of a product, brought from a device's memory to that which a block of threads shares.

Two steps, so that a block reads the next panel while it multiplies with this one: every thread reads its
part into registers (``fetch``), and later writes it to shared memory (``stash``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    broadcast,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    minimum,
    simplify,
    store,
    vector_dtype,
)

__all__ = ["LANES", "Operand", "Panel", "lane_of", "vector_lanes", "widened"]

LANES = 4
"""Elements of a vector of float32: 16 bytes are the most that a thread reads at once."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One factor of a product. A place is a row of the left one, a column of the right one.

    ``read(batch, place, step, lanes)`` gives elements that lie beside each other: consecutive steps where
    ``by_step``, else consecutive places. ``lanes``: as many as may be read at once, a vector's or 1; a
    vector's only where each such vector is aligned.
    """

    read: Callable[[Sequence[Expr], Expr, Expr, int], Expr]
    by_step: bool
    lanes: int
    dtype: str = "float32"


def widened(operand: Operand) -> Operand:
    """The operand in float32."""
    if operand.dtype == "float32":
        return operand

    def read(batch: Sequence[Expr], place: Expr, step: Expr, lanes: int) -> Expr:
        return tirx.Cast(vector_dtype("float32", lanes), operand.read(batch, place, step, lanes))

    return Operand(read=read, by_step=operand.by_step, lanes=min(operand.lanes, LANES))


def vector_lanes(dtype: str) -> int:
    """Elements of a vector of float32 or float16."""
    return LANES if dtype == "float32" else 2 * LANES


def lane_of(vector: Expr, lane: int, lanes: int) -> Expr:
    """One element of a vector."""
    return vector if lanes == 1 else tirx.Shuffle([vector], [lane])


@dataclass(frozen=True, kw_only=True)
class Panel:
    """``size`` places times ``steps`` of an operand that has ``places`` and ``extent`` in all.

    An element is at ``place * place_pitch + step * step_pitch`` of ``memory``. ``thread`` is one of
    ``threads``. What is outside of the operand is 0 or, for a place, any element.
    """

    operand: Operand
    size: int
    steps: int
    place_pitch: int
    step_pitch: int
    places: Expr
    extent: Expr
    thread: Expr
    threads: int
    memory: Buffer
    registers: Buffer

    @staticmethod
    def lanes_of(operand: Operand, size: int, steps: int, threads: int) -> int:
        """Elements that a thread reads at once: fewer where vectors are fewer than threads."""
        lanes = operand.lanes
        while size * steps % (threads * lanes):
            lanes //= 2
        return lanes

    @staticmethod
    def declare(operand: Operand, size: int, steps: int, threads: int, name: str) -> Buffer:
        """The registers of a thread for its part."""
        lanes = Panel.lanes_of(operand, size, steps, threads)
        dtype = vector_dtype(operand.dtype, lanes)
        return tirx.decl_buffer([i64(size * steps // threads // lanes)], dtype, name=name, scope="local")

    @property
    def _lanes(self) -> int:
        return self.lanes_of(self.operand, self.size, self.steps, self.threads)

    @property
    def _units(self) -> int:
        return self.size * self.steps // self.threads // self._lanes

    @property
    def _is_turned(self) -> bool:
        """Whether what lies beside each other in the operand does not in shared memory."""
        return (self.step_pitch if self.operand.by_step else self.place_pitch) != 1

    def _inner(self, unit: int) -> tuple[Expr, Expr]:
        """Place and step, within the panel, of a vector of this thread."""
        number = self.thread + unit * self.threads
        across = (self.steps if self.operand.by_step else self.size) // self._lanes
        outer, inner = floordiv(number, across), floormod(number, across) * self._lanes
        if self._is_turned and not self.operand.by_step and self._lanes > 1:
            # Threads beside each other write elements beside each other.
            outer, inner = floormod(number, self.steps), floordiv(number, self.steps) * self._lanes
        return (outer, inner) if self.operand.by_step else (inner, outer)

    def _all_inside(self, limit: Expr, each: int) -> bool:
        return (as_int(limit) or 1) % each == 0

    def locate(self, first: Expr) -> tuple[list[Expr], list[Stmt]]:
        """The places of this thread's vectors from place ``first`` on, and statements that compute them."""
        places, statements = [], []
        for unit in range(self._units):
            place = first + self._inner(unit)[0]
            if not self._all_inside(self.places, self.size) and not self._guards_places:
                place = minimum(place, i64(self.places) - 1)
            place, bound = bind("place", place)
            places.append(place)
            statements += bound
        return places, statements

    @property
    def _guards_places(self) -> bool:
        """Whether a vector over the end of the places must not be read: it cannot be moved back."""
        return self._lanes > 1 and not self.operand.by_step

    def fetch(self, batch: Sequence[Expr], places: Sequence[Expr], first: Expr) -> list[Stmt]:
        """Read the panel from step ``first`` on."""
        zero = broadcast(const_like(0.0, self.operand.dtype), self._lanes)
        statements = []
        for unit, place in enumerate(places):
            step = simplify(first + self._inner(unit)[1])
            read = store(self.registers, self.operand.read(batch, place, step, self._lanes), unit)
            inside = None
            if not self._all_inside(self.extent, self.steps):
                inside = step < self.extent
            if self._guards_places and not self._all_inside(self.places, self.size):
                here = place < self.places
                inside = here if inside is None else tirx.And(inside, here)
            cleared = store(self.registers, zero, unit)
            statements.append(read if inside is None else if_then(inside, read, cleared))
        return statements

    def stash(self) -> list[Stmt]:
        """Write what was read to shared memory."""
        statements, lanes = list[Stmt](), self._lanes
        for unit in range(self._units):
            place, step = self._inner(unit)
            value = load(self.registers, unit)
            at = simplify(step * self.step_pitch + place * self.place_pitch)
            if lanes == 1 or not self._is_turned:
                statements.append(tirx.BufferStore(self.memory, value, [lanes_at(at, lanes)]))
                continue
            pitch = self.step_pitch if self.operand.by_step else self.place_pitch
            statements += [
                store(self.memory, lane_of(value, lane, lanes), simplify(at + lane * pitch))
                for lane in range(lanes)
            ]
        return statements
