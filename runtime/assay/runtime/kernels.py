"""What each kernel of a library computes and touches, in terms of its arguments: a JSON file beside it.

A size is a number or an expression over the dimensions of the arguments, such as ``2*batch*sequence*384``:
sums, differences, products, ``//``, ``%``, ``min`` and ``max``.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from assay.errors import ArtifactError, ArtifactVersionError

__all__ = [
    "SCHEMA_VERSION",
    "Arithmetic",
    "Kernel",
    "Parameter",
    "Size",
    "Work",
    "decode_kernels",
    "encode_kernels",
    "evaluate",
    "kernels_file",
    "work_of",
]

SCHEMA_VERSION = 1

Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0)] | Annotated[str, msgspec.Meta(min_length=1)]
Arithmetic: TypeAlias = Literal["float", "integer"]

_BINARY: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[[int, int], int]] = {"min": min, "max": max}


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in the file: immutable, and strict about unknown fields."""


class Parameter(Struct, frozen=True, kw_only=True):
    """One parameter of a kernel: a tensor, or (``shape`` is None) a scalar whose name is that of a dimension.

    ``touched`` counts the bytes of it that one call reads or writes, each once.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...] | None
    touched: Size = 0


class Kernel(Struct, frozen=True, kw_only=True):
    """One kernel: its parameters in order, and its arithmetic operations where they are known.

    A multiply-add counts as two operations, a comparison of values, an exponential and the like as one.
    They are those of the definition: an algorithm that needs fewer still counts these. ``scheduled`` is
    False for one that keeps TVM's own loops.
    """

    parameters: tuple[Parameter, ...]
    operations: dict[Arithmetic, Size] | None
    scheduled: bool


class Work(Struct, frozen=True, kw_only=True):
    """What one call of a kernel does: operations by kind, None where not known; bytes of each argument."""

    operations: dict[Arithmetic, int] | None
    touched: tuple[int, ...]


class _File(Struct, frozen=True, kw_only=True):
    schema_version: int = SCHEMA_VERSION
    kernels: dict[str, Kernel]


class _Version(msgspec.Struct):
    schema_version: int


def kernels_file(library: str) -> str:
    """The name of the file that describes the kernels of ``library``, a file of an artifact."""
    return library.rpartition(".")[0] + ".kernels.json"


def encode_kernels(kernels: Mapping[str, Kernel]) -> bytes:
    """JSON of the kernels by name: UTF-8, indented, in one fixed order, a newline at the end."""
    file = _File(kernels=dict(kernels))
    return msgspec.json.format(msgspec.json.encode(file, order="sorted"), indent=2) + b"\n"


def decode_kernels(data: bytes) -> dict[str, Kernel]:
    """The kernels by name. Raises ArtifactVersionError for a newer schema, ArtifactError for damage."""
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise ArtifactVersionError(
                f"Kernels are described in schema {version}; this Assay reads up to {SCHEMA_VERSION}.",
                hint="Upgrade Assay, or build the artifact again with this version.",
            )
        return msgspec.json.decode(data, type=_File).kernels
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"The description of the kernels is damaged: {error}") from None


def work_of(kernel: Kernel, arguments: Sequence[tuple[int, ...] | int]) -> Work:
    """What a call with arguments of these shapes (or scalar values) does.

    Raises ArtifactError where they do not fit the kernel's parameters.
    """
    if len(arguments) != len(kernel.parameters):
        raise ArtifactError(
            f"A kernel has {len(kernel.parameters)} parameters, and is called with {len(arguments)}."
        )
    sizes: dict[str, int] = {}
    for parameter, argument in zip(kernel.parameters, arguments, strict=True):
        if isinstance(argument, int):
            sizes.setdefault(parameter.name, argument)
        elif parameter.shape is None or len(parameter.shape) != len(argument):
            raise ArtifactError(
                f"The description of the kernels is damaged: {parameter.name} has other dimensions."
            )
        else:
            for dim, size in zip(parameter.shape, argument, strict=True):
                if isinstance(dim, str) and dim.isidentifier():
                    sizes.setdefault(dim, size)
    operations = kernel.operations
    return Work(
        operations=None
        if operations is None
        else {kind: evaluate(count, sizes) for kind, count in operations.items()},
        touched=tuple(evaluate(parameter.touched, sizes) for parameter in kernel.parameters),
    )


def evaluate(size: Size, sizes: Mapping[str, int]) -> int:
    """The number that ``size`` stands for at ``sizes``. Raises ArtifactError for anything else."""
    if isinstance(size, int):
        return size
    try:
        found = _value(ast.parse(size, mode="eval").body, sizes)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError) as error:
        raise ArtifactError(
            f"The description of the kernels is damaged: {size!r} cannot be evaluated ({error})."
        ) from None
    if not math.isfinite(found) or found < 0:
        raise ArtifactError(f"The description of the kernels is damaged: {size!r} is {found}.")
    return found


def _value(node: Any, sizes: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return sizes[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, sizes)
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _BINARY:
            return _BINARY[type(kind)](_value(left, sizes), _value(right, sizes))
        case ast.Call(func=ast.Name(id=name), args=[left, right], keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_value(left, sizes), _value(right, sizes))
    raise ValueError(f"{type(node).__name__} is not allowed")
