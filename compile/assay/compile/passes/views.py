"""A tensor read through the operators that only move data: which element of which tensor an index means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from assay.compile.passes.graph import Graph, is_call, scalar_of
from assay.compile.schedules.ir import as_int, i64, same_shape

__all__ = ["View", "trace"]

Index = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class View:
    """``scale * base[at(index)]`` is the element at ``index`` of the tensor that was traced."""

    base: Any
    at: Callable[[Index], list[Any]]
    scale: float = 1.0


def trace(graph: Graph, expr: Any, *, factors: bool) -> View:
    """``expr`` through permutations, slices, reshapes and broadcasts, up to its base.

    With ``factors``, through products with a number too.
    """
    call = graph.value(expr)
    step = _step(call)
    if step is not None:
        inner = trace(graph, call.args[0], factors=factors)
        return View(base=inner.base, at=lambda index: inner.at(step(index)), scale=inner.scale)
    factor = _factor(call) if factors else None
    if factor is not None:
        operand, scale = factor
        inner = trace(graph, operand, factors=factors)
        return View(base=inner.base, at=inner.at, scale=inner.scale * scale)
    return View(base=expr, at=list)


def _factor(call: Any) -> tuple[Any, float] | None:
    """The operand and the number of a product or a quotient that keeps the operand's shape."""
    if not is_call(call, "multiply", "divide"):
        return None
    pairs = [(call.args[0], call.args[1])]
    if is_call(call, "multiply"):
        pairs.append((call.args[1], call.args[0]))
    for operand, other in pairs:
        number = scalar_of(other)
        if number is None or str(call.ty.dtype) != "float32" or not _keeps_shape(operand, call):
            continue
        if is_call(call, "multiply"):
            return operand, number
        if number != 0.0:
            return operand, 1.0 / number
    return None


def _keeps_shape(operand: Any, call: Any) -> bool:
    return (
        operand.ty.shape is not None
        and call.ty.shape is not None
        and same_shape(list(operand.ty.shape), list(call.ty.shape))
    )


def _step(call: Any) -> Callable[[Index], list[Any]] | None:
    """From an index of the result of a data movement to one of its operand; None for anything else."""
    if not is_call(call, "permute_dims", "strided_slice", "broadcast_to", "reshape"):
        return None
    if call.ty.shape is None or call.args[0].ty.shape is None:
        return None
    before, after = list(call.args[0].ty.shape), list(call.ty.shape)
    if is_call(call, "permute_dims"):
        axes = list(reversed(range(len(after)))) if call.attrs.axes is None else _ints(call.attrs.axes)
        return lambda index: [index[axes.index(axis)] for axis in range(len(axes))]
    if is_call(call, "strided_slice"):
        return _slice(call, len(before))
    if is_call(call, "broadcast_to"):
        skipped = len(after) - len(before)
        return lambda index: [
            i64(0) if as_int(extent) == 1 else at for at, extent in zip(index[skipped:], before, strict=True)
        ]
    return _reshape(before, after)


def _ints(values: Any) -> list[int]:
    return [int(v) for v in values]


def _slice(call: Any, rank: int) -> Callable[[Index], list[Any]] | None:
    axes, starts, *rest = ([as_int(v) for v in arg.fields] for arg in call.args[1:])
    strides = rest[1] if len(rest) > 1 else [1] * len(axes)
    if any(step != 1 for step in strides):
        return None
    offsets = [0] * rank
    for axis, start in zip(axes, starts, strict=True):
        if axis is None or start is None or start < 0:
            return None
        offsets[axis % rank] = start
    return lambda index: [at + offset if offset else at for at, offset in zip(index, offsets, strict=True)]


def _reshape(before: Sequence[Any], after: Sequence[Any]) -> Callable[[Index], list[Any]] | None:
    """Axes that are split or merged, each with static inner extents; None for any other reshape."""
    source = [axis for axis, extent in enumerate(before) if as_int(extent) != 1]
    target = [axis for axis, extent in enumerate(after) if as_int(extent) != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while source or target:
        group = _first_group(before, source, after, target)
        if group is None:
            return None
        groups.append(group)
        source, target = source[len(group[0]) :], target[len(group[1]) :]

    def at(index: Index) -> list[Any]:
        result: list[Any] = [i64(0)] * len(before)
        for inner, outer in groups:
            position = index[outer[0]]
            for axis in outer[1:]:
                position = position * as_int(after[axis]) + index[axis]
            for axis in reversed(inner[1:]):
                extent = as_int(before[axis])
                result[axis], position = tirx.floormod(position, extent), tirx.floordiv(position, extent)
            result[inner[0]] = position
        return result

    return at


def _first_group(
    before: Sequence[Any], source: Sequence[int], after: Sequence[Any], target: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """The fewest leading axes of both sides with as many elements, one axis on one of the sides."""
    for length in range(1, max(len(source), len(target)) + 1):
        for few, many in ((1, length), (length, 1)):
            if few > len(source) or many > len(target):
                continue
            ours, theirs = list(source[:few]), list(target[:many])
            inner = [*(before[a] for a in ours[1:]), *(after[a] for a in theirs[1:])]
            if any(as_int(extent) is None for extent in inner):
                continue
            if same_shape([_product(before, ours)], [_product(after, theirs)]):
                return ours, theirs
    return None


def _product(extents: Sequence[Any], axes: Sequence[int]) -> Any:
    size = i64(1)
    for axis in axes:
        size = size * i64(extents[axis])
    return size
