"""A launch plan at given shapes of the inputs: every size a number, every access inside its memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from assay.errors import ArtifactError, InterfaceError
from assay.runtime.plan import ITEM_BYTES, Expression, Place, Plan, Scalar, evaluate

__all__ = ["BoundPlan", "BoundStep", "BoundTensor", "bind"]

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class BoundTensor:
    """A tensor of a plan with its sizes: where it lies, from which byte, and its shape."""

    place: Place
    index: int
    offset: int
    dtype: str
    shape: Shape

    @cached_property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class BoundStep:
    """One call or launch: tensors by number and scalars as ``(dtype, value)``, in order; groups per axis."""

    kernel: int
    arguments: tuple[int | tuple[str, int], ...]
    grid: Shape = ()


@dataclass(frozen=True, kw_only=True)
class BoundPlan:
    """A plan whose expressions are evaluated; ``storages`` are sizes in bytes."""

    plan: Plan
    symbols: Mapping[str, int]
    storages: tuple[int, ...]
    tensors: tuple[BoundTensor, ...]
    steps: tuple[BoundStep, ...]


def bind(plan: Plan, shapes: Sequence[Shape]) -> BoundPlan:
    """``plan`` for inputs of ``shapes``.

    Raises InterfaceError where the shapes do not fit the plan's inputs, and ArtifactError where a tensor
    reaches beyond its memory, which a sound plan never does.
    """
    if len(shapes) != len(plan.inputs):
        raise InterfaceError(f"The model takes {len(plan.inputs)} inputs, not {len(shapes)}.")
    symbols: dict[str, int] = {}
    for symbol in plan.symbols:
        shape = shapes[symbol.input]
        if symbol.axis >= len(shape):
            raise InterfaceError(f"Input {symbol.input} has {len(shape)} dimensions, too few.")
        symbols[symbol.name] = shape[symbol.axis]

    def size(expression: Expression) -> int:
        return expression if isinstance(expression, int) else evaluate(expression, symbols)

    tensors = tuple(
        BoundTensor(
            place=each.place,
            index=each.index,
            offset=size(each.offset),
            dtype=each.dtype,
            shape=tuple(size(dim) for dim in each.shape),
        )
        for each in plan.tensors
    )
    storages = tuple(size(each.bytes) for each in plan.storages)
    steps = tuple(
        BoundStep(
            kernel=step.kernel,
            arguments=tuple(
                (each.dtype, size(each.value)) if isinstance(each, Scalar) else each
                for each in step.arguments
            ),
            grid=tuple(size(each) for each in step.grid or ()),
        )
        for step in plan.steps
    )
    bound = BoundPlan(plan=plan, symbols=symbols, storages=storages, tensors=tensors, steps=steps)
    _check(bound, shapes)
    return bound


def _check(bound: BoundPlan, shapes: Sequence[Shape]) -> None:
    plan = bound.plan
    for number, (tensor, shape) in enumerate(zip(plan.inputs, shapes, strict=True)):
        expected = bound.tensors[tensor].shape
        if tuple(shape) != expected:
            raise InterfaceError(f"Input {number} has shape {list(shape)}, expected {list(expected)}.")
    room = {
        Place.STORAGE: bound.storages,
        Place.INPUT: tuple(bound.tensors[each].nbytes for each in plan.inputs),
        Place.WEIGHT: tuple(bound.tensors[each].nbytes for each in plan.weights),
    }
    for number, each in enumerate(bound.tensors):
        if each.offset < 0 or any(size < 0 for size in each.shape):
            raise ArtifactError(f"The launch plan is damaged: tensor {number} has a negative size.")
        if each.offset + each.nbytes > room[each.place][each.index]:
            raise ArtifactError(
                f"The launch plan is damaged: tensor {number} reaches beyond {each.place} {each.index}."
            )
    for number, step in enumerate(bound.steps):
        if any(groups < 0 for groups in step.grid):
            raise ArtifactError(f"The launch plan is damaged: step {number} has a negative grid.")
