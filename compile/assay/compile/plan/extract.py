"""Read a planned Relax function as a launch plan; what a call of a kernel becomes is the flavour's.

Planned means: kernels are called on storage that ``StaticPlanBlockMemory`` laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

import tvm
from tvm import relax, tirx

from assay.compile.passes.constants import array_of
from assay.compile.plan.expressions import to_expression
from assay.errors import UnsupportedOperatorError
from assay.runtime.plan import (
    ITEM_BYTES,
    SCHEMA_VERSION,
    Expression,
    Flavour,
    Kernel,
    Place,
    Plan,
    PlanDType,
    Scalar,
    ScalarDType,
    Step,
    Storage,
    Symbol,
    Tensor,
)

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Extracted", "Extractor", "KernelCall", "Value"]

# Operators that give the same memory another shape; the position of the new shape, where there is one.
_ALIASES = {"relax.reshape": 1, "relax.memory.ensure_zero_offset": None}
_FREED = frozenset({"relax.memory.kill_storage", "relax.memory.kill_tensor"})


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """A shape as a value."""

    values: tuple[Expression, ...]


@dataclass(frozen=True, kw_only=True)
class _Storage:
    """Storage as a value, by number."""

    index: int


Value: TypeAlias = "Tensor | Scalar | _Sizes | _Storage | tuple[Value, ...] | None"
KernelCall: TypeAlias = "Callable[[Extractor, Any, Sequence[Tensor | Scalar]], None]"
"""Adds to the plan what a call of the kernel of that global variable on these arguments is."""


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """A plan, and weights that it has beside those that ``main`` takes: constants left in the code."""

    plan: Plan
    constants: dict[str, npt.NDArray[Any]]


@dataclass(kw_only=True)
class Extractor:
    """Goes through ``main``; ``kernel_call`` says what steps a call of a kernel becomes."""

    flavour: Flavour
    kernel_call: KernelCall
    storages: list[Storage] = field(default_factory=list)
    tensors: dict[Tensor, int] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    written_inputs: set[int] = field(default_factory=set)
    _symbols: dict[Any, Symbol] = field(default_factory=dict)
    _values: dict[Any, Value] = field(default_factory=dict)
    _inputs: list[Tensor] = field(default_factory=list)
    _weights: list[Tensor] = field(default_factory=list)
    _constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def extract(self, main: Any) -> Extracted:
        """The plan of ``main``.

        Its last parameter may be the tuple of weights. Raises UnsupportedOperatorError, naming the operator,
        for what needs TVM's virtual machine: shapes that depend on data, control flow, foreign functions.
        """
        self._bind_parameters(main)
        for block in main.body.blocks:
            for binding in block.bindings:
                self._values[binding.var] = self._binding(binding)
        outputs = self._flat(self._value(main.body.body))
        for each in outputs:
            if each.place is Place.STORAGE:
                storage = self.storages[each.index]
                self.storages[each.index] = Storage(bytes=storage.bytes, output=True)
        numbers = [self.number(each) for each in outputs]
        plan = Plan(
            schema_version=SCHEMA_VERSION,
            flavour=self.flavour,
            symbols=tuple(self._symbols.values()),
            storages=tuple(self.storages),
            inputs=tuple(self.number(each) for each in self._inputs),
            weights=tuple(self.number(each) for each in self._weights),
            outputs=tuple(numbers),
            written_inputs=tuple(sorted(self.written_inputs)),
            kernels=tuple(self.kernels.values()),
            steps=tuple(self.steps),
            tensors=tuple(self.tensors),
        )
        return Extracted(plan=plan, constants=self._constants)

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor, which is added where it is new."""
        return self.tensors.setdefault(tensor, len(self.tensors))

    def add_storage(self, nbytes: Expression) -> int:
        """The number of a new storage."""
        self.storages.append(Storage(bytes=nbytes))
        return len(self.storages) - 1

    def add_kernel(self, kernel: Kernel) -> int:
        """The number of a kernel, which is added where its name is new."""
        self.kernels.setdefault(kernel.name, kernel)
        return list(self.kernels).index(kernel.name)

    def note_written(self, tensor: Tensor) -> None:
        """Remember that a kernel may write ``tensor``."""
        if tensor.place is Place.INPUT:
            self.written_inputs.add(tensor.index)

    def sizes(self, values: Any) -> tuple[Expression, ...]:
        """Sizes of the function as expressions over the plan's symbols."""
        return tuple(to_expression(value, self.variables) for value in values)

    @property
    def variables(self) -> dict[Any, Expression]:
        """What the variables of the function stand for."""
        return {variable: symbol.name for variable, symbol in self._symbols.items()}

    def _bind_parameters(self, main: Any) -> None:
        parameters = list(main.params)
        weights = parameters.pop() if parameters and isinstance(parameters[-1].ty, relax.TupleType) else None
        for index, parameter in enumerate(parameters):
            self._add_symbols(index, parameter.ty)
        for index, parameter in enumerate(parameters):
            tensor = self._whole(Place.INPUT, index, parameter.ty)
            self._inputs.append(tensor)
            self._values[parameter] = tensor
        if weights is not None:
            kinds = enumerate(weights.ty.fields)
            self._weights += [self._whole(Place.WEIGHT, index, kind) for index, kind in kinds]
            self._values[weights] = tuple(self._weights)
        for tensor in (*self._inputs, *self._weights):
            self.number(tensor)

    def _add_symbols(self, index: int, kind: Any) -> None:
        for axis, size in enumerate(kind.shape.values):
            if isinstance(size, tirx.Var) and size not in self._symbols:
                name = "".join(c if c.isalnum() else "_" for c in str(size.name))
                taken = {symbol.name for symbol in self._symbols.values()}
                name = name if name[:1].isalpha() and name not in taken else f"size{len(taken)}_{name}"
                self._symbols[size] = Symbol(name=name, input=index, axis=axis)

    def _whole(self, place: Place, index: int, kind: Any) -> Tensor:
        return Tensor(place=place, index=index, dtype=_dtype(kind.dtype), shape=self.sizes(kind.shape.values))

    def _binding(self, binding: Any) -> Value:
        if not isinstance(binding, relax.VarBinding):
            raise UnsupportedOperatorError("A shape that depends on data cannot be in a launch plan.")
        return self._value(binding.value)

    def _value(self, value: Any) -> Value:
        if isinstance(value, relax.Var | tirx.Var) and value in self._values:
            return self._values[value]
        if isinstance(value, relax.Tuple):
            return tuple(self._value(each) for each in value.fields)
        if isinstance(value, relax.TupleGetItem):
            fields = cast("tuple[Value, ...]", self._value(value.tuple_value))
            return fields[int(value.index)]
        if isinstance(value, relax.ShapeExpr):
            return _Sizes(values=self.sizes(value.values))
        name = str(getattr(getattr(value, "op", None), "name", ""))
        if isinstance(value, tvm.ir.Call) and not name.startswith(("tirx.", "prim.")):
            return self._call(value)
        array = array_of(value)
        if array is not None:
            return self._constant(array, value.ty)
        return self._scalar(value)

    def _scalar(self, value: Any) -> Scalar:
        dtype = str(getattr(value.ty, "dtype", type(value).__name__))
        if dtype not in get_args(ScalarDType):
            raise UnsupportedOperatorError(f"A value of {dtype} cannot be passed in a launch plan.")
        return Scalar(dtype, to_expression(value, self.variables))  # type: ignore[arg-type]

    def _constant(self, array: npt.NDArray[Any], kind: Any) -> Tensor:
        """A constant that is not among the weights, as one more of them."""
        for name, known in self._constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and bool((known == array).all()):
                number = list(self._constants).index(name) + len(self._weights) - len(self._constants)
                return self._weights[number]
        tensor = self._whole(Place.WEIGHT, len(self._weights), kind)
        self._weights.append(tensor)
        self._constants[f"plan.constant.{len(self._constants)}"] = array
        return tensor

    def _call(self, call: Any) -> Value:
        if isinstance(call.op, tvm.ir.GlobalVar):
            arguments = self._flat_arguments(call.args)
            self.kernel_call(self, call.op, arguments)
            return None
        name = str(call.op.name)
        if name == "relax.memory.alloc_storage":
            (size,) = self._shape(call.args[0])
            return _Storage(index=self.add_storage(size))
        if name == "relax.memory.alloc_tensor":
            storage, offset, shape, dtype = call.args[:4]
            place = cast("_Storage", self._value(storage))
            return Tensor(
                place=Place.STORAGE,
                index=place.index,
                offset=cast("Scalar", self._value(offset)).value,
                dtype=_dtype(dtype.value),
                shape=self._shape(shape),
            )
        if name == "relax.builtin.alloc_tensor":
            shape, kind = self._shape(call.args[0]), _dtype(call.args[1].value)
            index = self.add_storage(_bytes(shape, kind))
            return Tensor(place=Place.STORAGE, index=index, dtype=kind, shape=shape)
        if name in _ALIASES:
            source = cast("Tensor", self._value(call.args[0]))
            position = _ALIASES[name]
            return source if position is None else _reshaped(source, self._shape(call.args[position]))
        if name in _FREED:
            return None
        if name == "relax.vm.call_tir_dyn":
            callee, operands = call.args[0], call.args[1].fields
            self.kernel_call(self, callee, self._flat_arguments(operands))
            return None
        raise UnsupportedOperatorError(f"The operator {_operator_name(call)} cannot be in a launch plan.")

    def _shape(self, value: Any) -> tuple[Expression, ...]:
        return cast("_Sizes", self._value(value)).values

    def _flat_arguments(self, operands: Any) -> list[Tensor | Scalar]:
        """Arguments of a kernel in order; a shape gives one scalar for each size."""
        arguments: list[Tensor | Scalar] = []
        for operand in operands:
            value = self._value(operand)
            if isinstance(value, _Sizes):
                arguments += [Scalar("int64", size) for size in value.values]
            elif isinstance(value, Tensor | Scalar):
                arguments.append(value)
            else:
                raise UnsupportedOperatorError("A kernel takes what a launch plan cannot pass.")
        return arguments

    def _flat(self, value: Value) -> list[Tensor]:
        if isinstance(value, tuple):
            return [tensor for each in value for tensor in self._flat(each)]
        if isinstance(value, Tensor):
            return [value]
        raise UnsupportedOperatorError("An output that is no tensor cannot be in a launch plan.")


def _reshaped(source: Tensor, shape: tuple[Expression, ...]) -> Tensor:
    return Tensor(
        place=source.place, index=source.index, offset=source.offset, dtype=source.dtype, shape=shape
    )


def _dtype(dtype: Any) -> PlanDType:
    name = str(dtype)
    if name not in get_args(PlanDType):
        raise UnsupportedOperatorError(f"Values of {name} cannot be in a launch plan.")
    return cast("PlanDType", name)


def _bytes(shape: Sequence[Expression], dtype: PlanDType) -> Expression:
    """Bytes of a dense tensor."""
    constant, symbolic = ITEM_BYTES[dtype], None
    for size in shape:
        if isinstance(size, int):
            constant *= size
        else:
            symbolic = size if symbolic is None else ("*", symbolic, size)
    if symbolic is None:
        return constant
    return symbolic if constant == 1 else ("*", symbolic, constant)


def _operator_name(call: Any) -> str:
    """The name of an operator, or of the function that it calls."""
    for operand in call.args:
        if isinstance(operand, relax.ExternFunc):
            return str(operand.global_symbol)
    return str(call.op.name).removeprefix("relax.")
