"""What one element of a stage costs: loads at flat offsets, arithmetic on them, and results, in order.

Blocks that are not stages of their own are computed here, where they are used, each once an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import tvm
import tvm_ffi
from tvm import tirx
from tvm.sym import Analyzer

from assay.compile.schedules.blocks import Block
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    children,
    i64,
    if_then,
    load,
    rebuild,
    seq,
    store,
    substitute,
    walk,
)
from assay.compile.schedules.math import Registers, vector_math

__all__ = [
    "Assign",
    "Axis",
    "Branch",
    "Builder",
    "Program",
    "Views",
    "call_name",
    "emit_program",
    "flat_offset",
    "make_analyzer",
    "make_axes",
    "program_expressions",
    "same_expr",
    "substitute_program",
]

# Symbolic extents are sizes: this is what an analyzer may assume of them.
_LARGEST_SIZE = 1 << 40


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One iterator of a loop nest: ``var`` runs from 0 to ``extent`` - 1."""

    var: Expr
    extent: Expr


@dataclass(frozen=True, kw_only=True)
class Assign:
    """``target = value``: a temporary that stays in a register."""

    target: Expr
    value: Expr


@dataclass(frozen=True, kw_only=True)
class Branch:
    """``target = then if condition else otherwise``, where only the branch taken may be computed."""

    target: Expr
    condition: Expr
    then: Program
    otherwise: Program


Step: TypeAlias = Assign | Branch


@dataclass(frozen=True, kw_only=True)
class Program:
    """Steps in order, then the values of the results, all in terms of the axes' variables."""

    steps: tuple[Step, ...]
    results: tuple[Expr, ...]


def same_expr(a: Expr, b: Expr) -> bool:
    """Whether two expressions are the same up to their form."""
    return bool(a.same_as(b)) or bool(tvm_ffi.structural_equal(a, b))


def make_axes(variables: Sequence[Expr], extents: Sequence[Expr]) -> tuple[Axis, ...]:
    """Fresh axes for a block's iterators."""
    return tuple(
        Axis(var=tirx.Var(str(var.name), "int64"), extent=i64(extent))
        for var, extent in zip(variables, extents, strict=True)
    )


def make_analyzer(axes: Iterable[Axis]) -> Analyzer:
    """An analyzer that knows the range of each axis, and that symbolic sizes are not negative."""
    analyzer = Analyzer()
    axes = list(axes)
    own = [axis.var for axis in axes]
    symbols = {
        node
        for axis in axes
        for node in walk(axis.extent)
        if isinstance(node, tirx.Var) and not any(node.same_as(var) for var in own)
    }
    for symbol in symbols:
        size = tirx.IntImm(
            str(symbol.ty.dtype), _LARGEST_SIZE if str(symbol.ty.dtype) == "int64" else 2**31 - 1
        )
        analyzer.bind(symbol, tvm.ir.Range(tirx.IntImm(str(symbol.ty.dtype), 0), size))
    for axis in axes:
        analyzer.bind(axis.var, tvm.ir.Range(i64(0), axis.extent))
    return analyzer


class Views:
    """One-dimensional views of row-major buffers, each declared once."""

    def __init__(self) -> None:
        self._views: list[tuple[Buffer, Buffer, Stmt]] = []

    def of(self, buffer: Buffer) -> Buffer:
        """The view of ``buffer``."""
        for known, view, _ in self._views:
            if known.same_as(buffer):
                return view
        size = i64(1)
        for extent in buffer.ty.shape:
            size = size * i64(extent)
        view = tirx.decl_buffer(
            [Analyzer().simplify(size)],
            str(buffer.ty.dtype),
            name=f"{buffer.name}_flat",
            scope=buffer.scope(),
        )
        self._views.append((buffer, view, tirx.DeclBuffer(view, data=buffer.data)))
        return view

    def declarations(self) -> list[Stmt]:
        """The statements that declare the views, for the head of the function."""
        return [declaration for _, _, declaration in self._views]


def flat_offset(buffer: Buffer, indices: Sequence[Expr], analyzer: Analyzer) -> Expr:
    """The position of ``buffer[indices]`` in its flat view."""
    offset: Expr = i64(0)
    for index, extent in zip(indices, buffer.ty.shape, strict=True):
        offset = offset * i64(extent) + i64(index)
    return analyzer.simplify(offset)


def call_name(node: Expr) -> str:
    """The name of the intrinsic that a node calls, without its namespace; empty for any other node."""
    if not isinstance(node, tvm.ir.Call) or not isinstance(node.op, tvm.ir.Op):
        return ""
    return str(node.op.name).rpartition(".")[2]


class Builder:
    """Builds a Program over the axes of one stage, with the blocks that it needs computed in place.

    ``producers``: the blocks computed where they are used. ``values``: buffers that this very stage holds
    in registers or scratch memory, the indices of the element that it holds, and what stands for it; ``used``
    tells which were loaded, ``misplaced`` whether any at other indices. ``facts``: conditions whose truth is
    known in this part of the iteration space. ``undecided`` collects the comparisons, of axes alone, that
    splitting the iteration space would decide.
    """

    def __init__(
        self,
        analyzer: Analyzer,
        views: Views,
        producers: Sequence[Block],
        *,
        facts: Sequence[tuple[Expr, bool]] = (),
    ) -> None:
        self.analyzer = analyzer
        self.views = views
        self.producers = producers
        self.facts = list(facts)
        self.steps: list[Step] = []
        self.undecided: list[Expr] = []
        self.values: list[tuple[Buffer, tuple[Expr, ...], Expr]] = []
        self.used: list[Buffer] = []
        self.misplaced = False
        self._known: list[tuple[Buffer, tuple[Expr, ...], Expr]] = []

    def program(self, *results: Expr) -> Program:
        """The steps so far, with these results."""
        return Program(steps=tuple(self.steps), results=results)

    def hold(self, value: Expr) -> Expr:
        """A temporary for ``value``, so that it is computed once; constants and booleans stay as they are."""
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm) or str(value.ty.dtype) == "bool":
            return value
        target = tirx.Var("t", value.ty.dtype)
        self.steps.append(Assign(target=target, value=value))
        return target

    def offset(self, buffer: Buffer, indices: Sequence[Expr]) -> Expr:
        """The flat position of ``buffer[indices]``."""
        return flat_offset(buffer, indices, self.analyzer)

    def value(self, expr: Expr, variables: Mapping[Expr, Expr]) -> Expr:
        """``expr`` with its variables replaced, its producers inlined and its loads flattened."""
        if isinstance(expr, tirx.Var):
            return variables.get(expr, expr)
        if isinstance(expr, tvm.ir.TensorLoad):
            indices = tuple(self.analyzer.simplify(self.value(i, variables)) for i in expr.indices)
            return self._load(expr.source, indices)
        if call_name(expr) in ("if_then_else", "likely"):
            return self._conditional(expr, variables)
        operands = children(expr)
        if not operands:
            return expr
        fresh = tuple(self.value(operand, variables) for operand in operands)
        if all(new.same_as(old) for new, old in zip(fresh, operands, strict=True)):
            return expr
        return rebuild(expr, fresh)

    def _load(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Expr:
        for held, stored, value in self.values:
            if held.same_as(buffer):
                self.used.append(buffer)
                if not all(
                    as_int(self.analyzer.simplify(a - b)) == 0 for a, b in zip(stored, indices, strict=True)
                ):
                    self.misplaced = True
                return value
        for known, at, value in self._known:
            if known.same_as(buffer) and all(same_expr(a, b) for a, b in zip(at, indices, strict=True)):
                return value
        producer = next((p for p in self.producers if p.output.same_as(buffer)), None)
        if producer is None:
            value = load(self.views.of(buffer), self.offset(buffer, indices))
            if str(buffer.ty.dtype) != "float32":
                return value
        else:
            variables = dict(zip(producer.spatial, (i64(0) for _ in producer.spatial), strict=True))
            for where, at in zip(producer.indices, indices, strict=True):
                if isinstance(where, tirx.Var):
                    variables[where] = at
            value = self.value(producer.value, variables)
        value = self.hold(value)
        self._known.append((buffer, indices, value))
        return value

    def _conditional(self, expr: Expr, variables: Mapping[Expr, Expr]) -> Expr:
        if call_name(expr) == "likely":
            return self.value(expr.args[0], variables)
        condition = self.decide(self.value(expr.args[0], variables))
        truth = as_int(condition)
        if truth is not None:
            return self.value(expr.args[1 if truth else 2], variables)
        then, otherwise = (self._branch(arm, variables) for arm in expr.args[1:])
        target = tirx.Var("t", expr.ty.dtype)
        self.steps.append(Branch(target=target, condition=condition, then=then, otherwise=otherwise))
        return target

    def _branch(self, arm: Expr, variables: Mapping[Expr, Expr]) -> Program:
        inner = Builder(self.analyzer, self.views, self.producers, facts=self.facts)
        inner.values, inner._known = self.values, list(self._known)
        result = inner.value(arm, variables)
        self.undecided += inner.undecided
        self.used += inner.used
        self.misplaced |= inner.misplaced
        return inner.program(result)

    def decide(self, condition: Expr) -> Expr:
        """``condition`` without the parts that are known; a constant where all of it is."""
        if isinstance(condition, tirx.And | tirx.Or):
            a, b = self.decide(condition.a), self.decide(condition.b)
            absorbing = isinstance(condition, tirx.Or)
            for one, other in ((a, b), (b, a)):
                known = as_int(one) if isinstance(one, tirx.IntImm) else None
                if known is not None:
                    return one if bool(known) == absorbing else other
            return type(condition)(a, b)
        for fact, truth in self.facts:
            if self._same_comparison(fact, condition):
                return tirx.const(truth, "bool")
        simple = self.analyzer.simplify(condition)
        if isinstance(simple, tirx.IntImm):
            return simple
        if self.analyzer.can_prove(simple):
            return tirx.const(True, "bool")
        if self.analyzer.can_prove(tirx.Not(simple)):
            return tirx.const(False, "bool")
        if isinstance(condition, tirx.LT | tirx.LE | tirx.GT | tirx.GE | tirx.EQ | tirx.NE) and not any(
            isinstance(node, tvm.ir.TensorLoad) for node in walk(condition)
        ):
            self.undecided.append(condition)
        return condition

    def _same_comparison(self, fact: Expr, condition: Expr) -> bool:
        """Whether a comparison is a known one, whatever form its operands have."""
        if type(fact) is not type(condition):
            return False
        difference = (fact.a - fact.b) - (condition.a - condition.b)
        return as_int(self.analyzer.simplify(difference)) == 0


def program_expressions(program: Program) -> Iterator[Expr]:
    """Every expression of a program: the values of its steps, conditions and results."""
    for step in program.steps:
        if isinstance(step, Assign):
            yield step.value
        else:
            yield step.condition
            yield from program_expressions(step.then)
            yield from program_expressions(step.otherwise)
    yield from program.results


def substitute_program(program: Program, variables: Mapping[Expr, Expr], analyzer: Analyzer) -> Program:
    """A program with axis variables replaced."""

    def put(expr: Expr) -> Expr:
        return substitute(
            expr,
            variables,
            lambda node: load(node.source, *(analyzer.simplify(i) for i in node.indices)),
        )

    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Assign):
            steps.append(Assign(target=step.target, value=put(step.value)))
        else:
            steps.append(
                Branch(
                    target=step.target,
                    condition=put(step.condition),
                    then=substitute_program(step.then, variables, analyzer),
                    otherwise=substitute_program(step.otherwise, variables, analyzer),
                )
            )
    return Program(steps=tuple(steps), results=tuple(put(result) for result in program.results))


def emit_program(
    program: Program, variables: Mapping[Expr, Expr], registers: Registers
) -> tuple[list[Stmt], list[Expr]]:
    """The statements of one element inside a loop over the lanes, and its results."""
    statements: list[Stmt] = []
    bound = dict(variables)
    for step in program.steps:
        if isinstance(step, Assign):
            more, value = vector_math(substitute(step.value, bound), registers)
            statements += more
            bound[step.target] = registers.keep(value, statements)
            continue
        register = registers.new(str(step.target.ty.dtype))
        arms = []
        for arm in (step.then, step.otherwise):
            more, (value,) = emit_program(arm, bound, registers)
            arms.append(seq(more, store(register, value, registers.lane)))
        statements.append(if_then(substitute(step.condition, bound), *arms))
        bound[step.target] = load(register, registers.lane)
    results = []
    for result in program.results:
        more, value = vector_math(substitute(result, bound), registers)
        statements += more
        results.append(value)
    return statements, results
