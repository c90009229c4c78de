"""The launch plan: which kernels run, on which memory, in which order, as data (JSON).

A plan replaces TVM's virtual machine where there is none: a driver binds it to the shapes of the inputs,
allocates the storages, and goes through the steps. ``docs/launch-plan.md`` describes the format. A plan is
untrusted: ``decode_plan`` checks everything that does not depend on shapes, ``bound_plan.bind`` the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec

from assay.errors import ArtifactError, ArtifactVersionError

__all__ = [
    "ITEM_BYTES",
    "OPERATORS",
    "SCHEMA_VERSION",
    "Argument",
    "Expression",
    "Flavour",
    "Kernel",
    "Parameter",
    "Place",
    "Plan",
    "PlanDType",
    "Scalar",
    "ScalarDType",
    "Step",
    "Storage",
    "Symbol",
    "Tensor",
    "decode_plan",
    "encode_plan",
    "evaluate",
    "needed_features",
    "plan_file",
]

SCHEMA_VERSION = 1

Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Identifier: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=1000)]
PlanDType: TypeAlias = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "float16", "bfloat16",
    "int32", "uint32", "float32", "int64", "uint64", "float64",
]  # fmt: skip
ScalarDType: TypeAlias = Literal["int32", "int64", "uint32"]

Expression: TypeAlias = int | str | tuple[Any, ...]
"""A number, the name of a symbol, or ``[operator, operand, ...]`` with expressions as operands."""

# Operands of each. Division and remainder round down; comparisons give 0 or 1; select takes its second
# operand where the first is not 0, else its third.
OPERATORS: Mapping[str, int] = {
    "+": 2, "-": 2, "*": 2, "//": 2, "%": 2, "min": 2, "max": 2,
    "<": 2, "<=": 2, "==": 2, "!=": 2, "select": 3,
}  # fmt: skip

ITEM_BYTES: Mapping[str, int] = {
    name: 1 if name == "bool" else int(re.sub(r"\D", "", name)) // 8 for name in get_args(PlanDType)
}
"""Bytes of one element of each dtype."""

# What an element type of buffers asks of a device.
_FEATURES: Mapping[str, str] = {"float16": "f16", "float64": "f64", "int64": "int64"}
_LARGEST = 2**62
_DEEPEST = 64


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every object in a plan: immutable, and strict about unknown fields."""


class Flavour(StrEnum):
    """What a step is: a call of a C function on the CPU, or the launch of a device's kernel."""

    CPU = "cpu"
    DEVICE = "device"


class Place(StrEnum):
    """Whose memory a tensor lies in."""

    STORAGE = "storage"
    INPUT = "input"
    WEIGHT = "weight"


class Symbol(Struct, frozen=True, kw_only=True):
    """A symbolic size: that of dimension ``axis`` of input number ``input``."""

    name: Identifier
    input: Index
    axis: Index


class Storage(Struct, frozen=True, kw_only=True):
    """Memory for intermediate results, 64-byte aligned.

    Tensors that do not live at the same time share one; so do tensors of different shapes and dtypes.
    With ``output`` it holds an output, and belongs to the caller after the run.
    """

    bytes: Expression
    output: bool = False


class Tensor(Struct, frozen=True, kw_only=True):
    """A dense row-major tensor at ``offset`` bytes into a storage, an input or a weight.

    ``index`` counts within its place. Tensors of the same memory are views of each other.
    """

    place: Place
    index: Index
    offset: Expression = 0
    dtype: PlanDType
    shape: tuple[Expression, ...]


class Scalar(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A number that a kernel takes: ``[dtype, expression]``."""

    dtype: ScalarDType
    value: Expression


Argument: TypeAlias = Index | Scalar
"""The number of a tensor, or a scalar."""


class Parameter(Struct, frozen=True, kw_only=True):
    """One parameter of a device's kernel: a buffer of ``dtype``, or a scalar.

    ``written``: whether the kernel may write the buffer.
    """

    dtype: PlanDType
    buffer: bool = True
    written: bool = False


class Kernel(Struct, frozen=True, kw_only=True):
    """One kernel.

    On the CPU: ``__tvm_ffi_<name>`` of the level's library. On a device: the function ``name`` in the source
    or binary ``file`` in the folder of the plan, with its parameters in order, ``threads`` of one group in x,
    y and z, and the bytes of memory that a group shares.
    """

    name: Identifier
    file: str | None = None
    parameters: tuple[Parameter, ...] = ()
    threads: tuple[Index, Index, Index] | None = None
    shared_bytes: Index = 0


class Step(Struct, frozen=True, kw_only=True):
    """One call or launch of kernel number ``kernel``; ``grid``: groups in x, y and z, on a device."""

    kernel: Index
    arguments: tuple[Argument, ...]
    grid: tuple[Expression, Expression, Expression] | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """A launch plan.

    ``inputs`` and ``weights`` are the tensors that are the whole of each, in the order of the manifest's
    inputs and of the entry's weights; ``outputs`` those to return, in the order of the manifest.
    ``written_inputs`` are the numbers of inputs that kernels write (a decoder's cache).
    """

    schema_version: int
    flavour: Flavour
    symbols: tuple[Symbol, ...]
    storages: tuple[Storage, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Index, ...]
    weights: tuple[Index, ...]
    outputs: tuple[Index, ...]
    written_inputs: tuple[Index, ...] = ()
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]


class _Version(msgspec.Struct):
    schema_version: int


def needed_features(plan: Plan) -> tuple[str, ...]:
    """What a device must have for the buffers of ``plan``, by the names of ``DeviceInfo.features``.

    Scalars are sizes, which devices without int64 take with 32 bits.
    """
    dtypes = {each.dtype for kernel in plan.kernels for each in kernel.parameters if each.buffer}
    return tuple(feature for dtype, feature in _FEATURES.items() if dtype in dtypes)


def plan_file(library: str) -> str:
    """The name, in an artifact, of the plan for ``library``: ``lib/model.plan.json`` for ``lib/model.so``."""
    return library.rpartition(".")[0] + ".plan.json"


def encode_plan(plan: Plan) -> bytes:
    """JSON of a plan, one line for each object of its lists; the same bytes every time.

    Raises ValueError for a plan that ``decode_plan`` would refuse.
    """
    data = _layout(plan)
    try:
        decode_plan(data)
    except ArtifactError as error:
        raise ValueError(f"the plan cannot be written: {error.message}") from None
    return data


def _layout(plan: Plan) -> bytes:
    parts = []
    for name, value in msgspec.structs.asdict(plan).items():
        if isinstance(value, tuple) and value and isinstance(value[0], Struct):
            rows = b",\n  ".join(msgspec.json.encode(each) for each in value)
            parts.append(b'"%s": [\n  %s\n ]' % (name.encode(), rows))
        else:
            parts.append(b'"%s": %s' % (name.encode(), msgspec.json.encode(value)))
    return b"{\n " + b",\n ".join(parts) + b"\n}\n"


def decode_plan(data: bytes) -> Plan:
    """A plan from its JSON, checked: nothing in it refers to what is not there.

    Raises ArtifactVersionError for another schema, and ArtifactError, saying what is wrong, for damage.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise ArtifactVersionError(
                f"The launch plan has schema {version}; this Assay reads schema {SCHEMA_VERSION} only.",
                hint="Build the artifact again, or run it with the Assay that built it.",
            )
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"The launch plan is damaged: {error}") from None
    problem = next(_problems(plan), None)
    if problem is not None:
        raise ArtifactError(f"The launch plan is damaged: {problem}.")
    return plan


def evaluate(expression: Expression, symbols: Mapping[str, int]) -> int:
    """The value of a checked expression where the symbols have these values.

    Raises ArtifactError for a division by zero, and for a value beyond 64 bits on the way.
    """
    if isinstance(expression, int):
        return expression
    if isinstance(expression, str):
        return symbols[expression]
    name = expression[0]
    if name == "select":
        return evaluate(expression[2 if evaluate(expression[1], symbols) else 3], symbols)
    value = _combined(name, evaluate(expression[1], symbols), evaluate(expression[2], symbols))
    if not -_LARGEST <= value <= _LARGEST:
        raise ArtifactError("The launch plan is damaged: a size is beyond 64 bits.")
    return value


def _combined(name: str, a: int, b: int) -> int:
    match name:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
        case "<":
            return int(a < b)
        case "<=":
            return int(a <= b)
        case "==":
            return int(a == b)
        case "!=":
            return int(a != b)
    if b == 0:
        raise ArtifactError("The launch plan is damaged: a size is divided by zero.")
    return a // b if name == "//" else a % b


def _problems(plan: Plan) -> Iterator[str]:
    """What is wrong with a plan, in words."""
    yield from _symbol_problems(plan)
    names = {symbol.name for symbol in plan.symbols}
    for where, expression in _expressions(plan):
        problem = _expression_problem(expression, names)
        if problem:
            yield f"{where}: {problem}"
    yield from _tensor_problems(plan)
    device = plan.flavour is Flavour.DEVICE
    for kernel in plan.kernels:
        if device and (kernel.file is None or kernel.threads is None or 0 in kernel.threads):
            yield f"kernel {kernel.name} of a device has no file, or no threads"
    for number, step in enumerate(plan.steps):
        problem = _step_problem(plan, step)
        if problem:
            yield f"step {number} {problem}"


def _symbol_problems(plan: Plan) -> Iterator[str]:
    names = [symbol.name for symbol in plan.symbols]
    if len(set(names)) != len(names):
        yield "a symbol is defined twice"
    for symbol in plan.symbols:
        if symbol.input >= len(plan.inputs) or plan.inputs[symbol.input] >= len(plan.tensors):
            yield f"symbol {symbol.name} is of an input that is not there"
        elif symbol.axis >= len(plan.tensors[plan.inputs[symbol.input]].shape):
            yield f"symbol {symbol.name} is of a dimension that is not there"


def _tensor_problems(plan: Plan) -> Iterator[str]:
    counts = {
        Place.STORAGE: len(plan.storages), Place.INPUT: len(plan.inputs), Place.WEIGHT: len(plan.weights)
    }  # fmt: skip
    for number, tensor in enumerate(plan.tensors):
        if tensor.index >= counts[tensor.place]:
            yield f"tensor {number} lies in {tensor.place} {tensor.index}, which is not there"
    for number in (*plan.inputs, *plan.weights, *plan.outputs):
        if number >= len(plan.tensors):
            yield f"tensor {number} is not there"
    for place, numbers in ((Place.INPUT, plan.inputs), (Place.WEIGHT, plan.weights)):
        for index, number in enumerate(numbers):
            whole = (place, index, 0)
            if number < len(plan.tensors) and _memory(plan.tensors[number]) != whole:
                yield f"tensor {number} is not the whole of {place} {index}"
    for number in plan.written_inputs:
        if number >= len(plan.inputs):
            yield f"input {number} is not there"


def _memory(tensor: Tensor) -> tuple[Place, int, Expression]:
    return tensor.place, tensor.index, tensor.offset


def _step_problem(plan: Plan, step: Step) -> str | None:
    if step.kernel >= len(plan.kernels):
        return f"runs kernel {step.kernel}, which is not there"
    kernel = plan.kernels[step.kernel]
    for argument in step.arguments:
        if isinstance(argument, int) and argument >= len(plan.tensors):
            return f"takes tensor {argument}, which is not there"
    if plan.flavour is Flavour.CPU:
        return None
    if step.grid is None:
        return "has no grid"
    if len(step.arguments) != len(kernel.parameters):
        return f"gives {kernel.name} {len(step.arguments)} arguments of {len(kernel.parameters)}"
    for parameter, argument in zip(kernel.parameters, step.arguments, strict=True):
        if parameter.buffer != isinstance(argument, int):
            return f"gives {kernel.name} a scalar for a buffer, or a buffer for a scalar"
    return None


def _expressions(plan: Plan) -> Iterator[tuple[str, Expression]]:
    for number, storage in enumerate(plan.storages):
        yield f"storage {number}", storage.bytes
    for number, tensor in enumerate(plan.tensors):
        for expression in (tensor.offset, *tensor.shape):
            yield f"tensor {number}", expression
    for number, step in enumerate(plan.steps):
        scalars = [each.value for each in step.arguments if isinstance(each, Scalar)]
        for expression in (*scalars, *(step.grid or ())):
            yield f"step {number}", expression


def _expression_problem(expression: Any, symbols: set[str], depth: int = 0) -> str | None:
    if depth > _DEEPEST:
        return "an expression is nested too deeply"
    if isinstance(expression, int) and not isinstance(expression, bool):
        return None if -_LARGEST <= expression <= _LARGEST else f"{expression} is beyond 64 bits"
    if isinstance(expression, str):
        return None if expression in symbols else f"there is no symbol {expression!r}"
    if not isinstance(expression, Sequence) or not expression or not isinstance(expression[0], str):
        return f"{str(expression)[:40]!r} is no expression"
    if len(expression) - 1 != OPERATORS.get(expression[0]):
        return f"{expression[0][:40]!r} with {len(expression) - 1} operands is no expression"
    for operand in expression[1:]:
        problem = _expression_problem(operand, symbols, depth + 1)
        if problem:
            return problem
    return None
