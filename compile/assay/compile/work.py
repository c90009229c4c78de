"""What a kernel computes and touches, counted from the loop nests of the fused function that it is made from.

The counts are those of a roofline (Williams, Waterman and Patterson, "Roofline: An Insightful Visual
Performance Model for Multicore Architectures", CACM 52(4), 2009): arithmetic operations of the definition,
and bytes of the arguments, each touched once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import tvm
from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction, UnreadableFunctionError, read_function
from assay.compile.schedules.ir import Buffer, Expr, as_int, children, i64, minimum, simplify, walk
from assay.compile.schedules.paged_problem import GATHERED
from assay.compile.schedules.program import call_name
from assay.runtime.kernels import Arithmetic, Kernel, Parameter, Size

__all__ = ["describe_kernel", "describe_kernels"]

# Selecting, converting and moving values is no arithmetic.
_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Min, tirx.Max)
_FREE_CALLS = frozenset({"if_then_else", "reinterpret", "likely"})


def describe_kernels(module: Any) -> dict[str, Kernel]:
    """The description of every kernel of an unscheduled module, by name.

    One whose sizes have no simple expression is left out.
    """
    described = {}
    for variable, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc):
            with contextlib.suppress(UndescribableError):
                described[str(variable.name_hint)] = describe_kernel(function)
    return dict(sorted(described.items()))


class UndescribableError(Exception):
    """A size that is more than arithmetic on dimensions."""


def describe_kernel(function: Expr, *, scheduled: bool = True) -> Kernel:
    """Describe an unscheduled fused PrimFunc; what is not made of plain blocks counts no operations.

    A gather touches as many elements of its table as it reads; anything else touches its buffers whole, or
    the part that its loops reach.
    """
    names = _Names(function)
    try:
        fused: FusedFunction | None = read_function(function)
    except UnreadableFunctionError:
        fused = None
    operations = None if fused is None else _operations(fused.blocks, names)
    parameters = tuple(_parameter(param, function, fused, names) for param in function.params)
    return Kernel(parameters=parameters, operations=operations, scheduled=scheduled)


def _parameter(param: Expr, function: Expr, fused: FusedFunction | None, names: _Names) -> Parameter:
    buffer = _buffer_of(param, function)
    if buffer is None:
        return Parameter(name=names.name(param), dtype=str(param.ty.dtype), shape=None)
    dtype = str(buffer.ty.dtype)
    size = _product(buffer.ty.shape)
    if fused is not None:
        elements = minimum(size, _reached(buffer, fused))
    else:
        elements = minimum(size, _gathered(buffer, function, size))
    return Parameter(
        name=str(buffer.name),
        dtype=dtype,
        shape=tuple(names.size(extent) for extent in buffer.ty.shape),
        touched=names.size(elements * i64(_itemsize(dtype))),
    )


def _buffer_of(param: Expr, function: Expr) -> Buffer | None:
    """The buffer behind a parameter, None for a scalar."""
    if hasattr(param.ty, "shape"):
        return param
    return dict(getattr(function, "buffer_map", {}) or {}).get(param)


def _itemsize(dtype: str) -> int:
    bits = int("".join(character for character in dtype if character.isdigit()) or 8)
    return max(1, bits // 8)


def _product(extents: Iterable[Expr]) -> Expr:
    size = i64(1)
    for extent in extents:
        size = size * i64(extent)
    return simplify(size)


def _reached(buffer: Buffer, fused: FusedFunction) -> Expr:
    """Elements that the loops of all blocks reach, at most: whatever the size of the buffer."""
    total = i64(0)
    for block in fused.blocks:
        extents = dict(
            zip(
                (*block.spatial, *block.reduction),
                (*block.spatial_extents, *block.reduction_extents),
                strict=True,
            )
        )
        values = [block.value, *([block.init] if block.init is not None else [])]
        places = [
            node.indices
            for value in values
            for node in walk(value)
            if isinstance(node, tvm.ir.TensorLoad) and node.source.same_as(buffer)
        ]
        if block.output.same_as(buffer):
            places.append(block.indices)
        for indices in places:
            used = {node for index in indices for node in walk(index) if isinstance(node, tirx.Var)}
            total = total + _product(extent for variable, extent in extents.items() if variable in used)
    return simplify(total)


def _gathered(buffer: Buffer, function: Expr, size: Expr) -> Expr:
    """Elements of a table that a kernel says it reads a row of for each id; else ``size``."""
    said = dict(getattr(function, "attrs", None) or {}).get(GATHERED)
    ids = json.loads(str(said)).get(str(buffer.name)) if said is not None else None
    if ids is None:
        return size
    found = (_buffer_of(param, function) for param in function.params)
    count = next(_product(each.ty.shape) for each in found if each is not None and str(each.name) == ids)
    return simplify(count * _product(buffer.ty.shape[1:]))


def _operations(blocks: Iterable[Block], names: _Names) -> dict[Arithmetic, Size]:
    totals: dict[Arithmetic, Expr] = {}
    for block in blocks:
        stated = block.annotations.get("assay.operations")
        if stated is not None:
            # Of one element of the output: the loops say more than the operator's definition does.
            steps = _product(block.spatial_extents)
            counts: dict[Arithmetic, int] = {_kind(block.output): int(stated)}  # type: ignore[call-overload]
        else:
            steps = _product((*block.spatial_extents, *block.reduction_extents))
            counts = _per_step(block.value)
        for kind, count in counts.items():
            totals[kind] = totals.get(kind, i64(0)) + steps * i64(count)
    return {kind: names.size(total) for kind, total in sorted(totals.items())}


def _per_step(value: Expr) -> dict[Arithmetic, int]:
    """Operations of one evaluation of ``value`` by kind."""
    counts: dict[Arithmetic, int] = {}
    for node in _arithmetic(value):
        kind = _kind(node)
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _kind(value: Expr) -> Arithmetic:
    return "float" if "float" in str(value.ty.dtype) else "integer"


def _arithmetic(value: Expr) -> Iterator[Expr]:
    """The nodes that compute on elements: indices and conditions are not looked into."""
    if isinstance(value, tvm.ir.TensorLoad):
        return
    operands = children(value)
    if isinstance(value, tirx.Select) or call_name(value) == "if_then_else":
        operands = operands[1:]
    if isinstance(value, _ARITHMETIC) or (
        isinstance(value, tvm.ir.Call) and call_name(value) not in _FREE_CALLS
    ):
        yield value
    for operand in operands:
        yield from _arithmetic(operand)


class _Names:
    """Names of the variables of one function, each an identifier and no two the same."""

    def __init__(self, function: Expr) -> None:
        self._names: dict[Any, str] = {}

    def name(self, variable: Expr) -> str:
        """The name of a variable, the same whenever it is asked for."""
        if variable not in self._names:
            plain = "".join(c if c.isalnum() or c == "_" else "_" for c in str(variable.name))
            plain = plain if plain[:1].isalpha() else f"d{plain}"
            taken = set(self._names.values())
            candidates = (plain if number == 0 else f"{plain}_{number}" for number in range(len(taken) + 1))
            self._names[variable] = next(name for name in candidates if name not in taken)
        return self._names[variable]

    def size(self, value: Expr) -> Size:
        """A number, or an expression in the syntax of ``assay.runtime.kernels``."""
        known = as_int(value)
        return known if known is not None else self._text(simplify(value))

    def _text(self, value: Expr) -> str:
        match value:
            case tirx.IntImm():
                return str(int(value.value))
            case tirx.Var():
                return self.name(value)
            case tirx.Cast():
                return self._text(value.value)
            case tirx.Min() | tirx.Max():
                function = "min" if isinstance(value, tirx.Min) else "max"
                return f"{function}({self._text(value.a)}, {self._text(value.b)})"
        for node, symbol in _SYMBOLS:
            if isinstance(value, node):
                return f"({self._text(value.a)} {symbol} {self._text(value.b)})"
        raise UndescribableError(str(value))


_SYMBOLS = (
    (tirx.Add, "+"),
    (tirx.Sub, "-"),
    (tirx.Mul, "*"),
    (tirx.FloorDiv, "//"),
    (tirx.FloorMod, "%"),
    (tirx.Div, "//"),
    (tirx.Mod, "%"),
)
