"""What the loops of attention are told: sizes, where elements lie, which queries, and a task's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.compile.schedules.ir import Buffer, Expr, Stmt, allocate, simplify, substitute
from assay.compile.schedules.program import Program
from assay.compile.targets.target import VectorUnit

__all__ = ["Access", "Panels", "Problem", "Scratch"]


@dataclass(frozen=True, kw_only=True)
class Access:
    """An element of a one-dimensional view, at an offset in terms of a problem's variables."""

    buffer: Buffer
    offset: Expr

    def step(self, var: Expr) -> Expr:
        """How far the offset moves for one step of ``var``: offsets are affine in the problem's variables."""
        return simplify(substitute(self.offset, {var: var + 1}) - self.offset)

    def at(self, variables: Mapping[Expr, Expr]) -> Expr:
        """The offset for these values of the variables."""
        return substitute(self.offset, variables)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One head of attention: sizes, the variables ``key``, ``query`` and ``column``, and where elements lie.

    ``q``: at (query, column), times ``q_scale``; ``k``, ``v``: at (key, column); ``out``: at (query, column).
    ``modification``: what happens to ``score`` before the softmax. ``zero_masked``: a row whose scores are
    all minus infinity is zero, not NaN. ``key_block``: the most keys scored at once. ``mask``: what is added
    to scores last, where it tells queries apart.
    """

    keys: Expr
    queries: Expr
    depth: int
    value_depth: int
    key: Expr
    query: Expr
    column: Expr
    q: Access
    q_scale: float
    k: Access
    v: Access
    out: Access
    score: Expr
    modification: Program
    mask: Access | None
    zero_masked: bool
    unit: VectorUnit
    expected_keys: int
    key_block: int


@dataclass(frozen=True, kw_only=True)
class Panels:
    """``count`` panels of ``width`` queries from ``first``.

    ``clamped``: the last panel may reach beyond the last query, which it then computes several times.
    """

    first: Expr
    count: Expr
    width: int
    clamped: bool


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A task's memory.

    For each panel ``[depth, width]`` of packed Q, ``[value_depth, width]`` of sums, maxima and sums of
    powers; scores ``[key_block, width]`` of the panel at work; flags of each panel (see ``_Emitter.emit``).
    """

    queries: Buffer
    sums: Buffer
    peaks: Buffer
    totals: Buffer
    scores: Buffer
    skipped: Buffer
    again: Buffer
    declarations: tuple[Stmt, ...]

    @classmethod
    def allocate(cls, problem: Problem, panels: int, width: int) -> Scratch:
        """Memory for ``panels`` panels of ``width`` queries, or as many queries in narrower panels."""
        columns = panels * width
        sizes = {
            "queries": columns * problem.depth,
            "sums": columns * problem.value_depth,
            "peaks": columns,
            "totals": columns,
            "scores": problem.key_block * width,
        }
        made = {name: allocate([size], "float32", name) for name, size in sizes.items()}
        for name in ("skipped", "again"):
            made[name] = allocate([columns // problem.unit.lanes()], "int32", name)
        return cls(
            **{name: buffer for name, (buffer, _) in made.items()},
            declarations=tuple(declaration for _, declaration in made.values()),
        )
