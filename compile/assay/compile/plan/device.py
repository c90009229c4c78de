"""The devices' flavour of a launch plan: a step launches one kernel.

TVM splits each scheduled function into kernels and a function of the host that launches them. Here that host
function is read, with its sizes in the plan's terms, instead of being compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import tvm
from tvm import tirx

from assay.compile.plan.expressions import to_expression
from assay.compile.plan.extract import Extracted, Extractor
from assay.compile.plan.written import statements, written_parameters
from assay.compile.schedules.ir import as_int
from assay.errors import AssayError
from assay.runtime.plan import (
    ITEM_BYTES,
    Argument,
    Expression,
    Flavour,
    Kernel,
    Parameter,
    Place,
    PlanDType,
    Scalar,
    ScalarDType,
    Step,
    Tensor,
)

__all__ = ["Split", "describe_kernels", "extract_device_plan", "split_kernels"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Scheduled functions split into ``kernels``, an IRModule, and what launches them, by name."""

    hosts: Mapping[str, Any]
    kernels: Any


def split_kernels(module: Any, target: Any) -> Split:
    """The scheduled kernels of ``module``, without its ``main``, lowered and split for TVM's ``target``."""
    from tvm.tirx.build import split_host_device_mods

    functions = {v: f for v, f in module.functions.items() if isinstance(f, tirx.PrimFunc)}
    if not functions:
        return Split(hosts={}, kernels=tvm.IRModule({}))
    bound = tirx.transform.BindTarget(target)(tvm.IRModule(functions))
    pipeline, _, finalize_device = tirx.get_default_tir_pipeline(target)
    snapshot = _Snapshot()
    with tvm.transform.PassContext(instruments=[snapshot]):
        lowered = pipeline(bound)
    kernels: dict[Any, Any] = {}
    for device_module in split_host_device_mods(lowered)[1].values():
        kernels.update(finalize_device()(device_module).functions.items())
    hosts = {
        str(variable.name_hint): function
        for variable, function in snapshot.module.functions.items()
        if "calling_conv" not in (function.attrs or {})
    }
    return Split(hosts=hosts, kernels=tvm.IRModule(kernels))


@tvm.instrument.pass_instrument
class _Snapshot:
    """Keeps the module as it is after host and device were split, when launches are still calls."""

    def __init__(self) -> None:
        self.module: Any = None

    def run_after_pass(self, module: Any, info: Any) -> None:
        """TVM calls this after every pass."""
        if info.name == "tirx.SplitHostDevice":
            self.module = module


def describe_kernels(kernels: Any, file: str) -> dict[str, Kernel]:
    """The kernels of an IRModule by name, whose code is in ``file``; threads are filled in at a launch."""
    return {
        str(variable.name_hint): Kernel(
            name=str(variable.name_hint),
            file=file,
            parameters=_parameters(function),
            shared_bytes=_shared_bytes(function),
        )
        for variable, function in kernels.functions.items()
    }


def extract_device_plan(main: Any, split: Split, kernels: Mapping[str, Kernel]) -> Extracted:
    """The plan of a planned ``main`` that calls the functions of ``split``.

    Raises UnsupportedOperatorError for what needs TVM's virtual machine, and AssayError for a function whose
    launches depend on more than sizes.
    """
    workspaces: dict[tuple[int, Expression], int] = {}

    def call(extractor: Extractor, variable: Any, arguments: Sequence[Tensor | Scalar]) -> None:
        name = str(variable.name_hint)
        reader = _HostReader(
            name=name, extractor=extractor, arguments=arguments, kernels=kernels, workspaces=workspaces
        )
        reader.read(split.hosts[name])

    return Extractor(flavour=Flavour.DEVICE, kernel_call=call).extract(main)


@dataclass(kw_only=True)
class _HostReader:
    """Adds the launches of one call of a host function to a plan."""

    name: str
    extractor: Extractor
    arguments: Sequence[Tensor | Scalar]
    kernels: Mapping[str, Kernel]
    workspaces: dict[tuple[int, Expression], int]
    variables: dict[Any, Expression] = field(default_factory=dict)
    buffers: dict[Any, Tensor] = field(default_factory=dict)
    views: dict[Any, Any] = field(default_factory=dict)
    allocations: set[Any] = field(default_factory=set)
    allocated: int = 0

    def read(self, function: Any) -> None:
        for parameter, argument in zip(function.params, self.arguments, strict=True):
            if isinstance(argument, Scalar):
                self.variables[parameter] = argument.value
                continue
            self.buffers[parameter] = argument
            for extent, size in zip(parameter.ty.shape, argument.shape, strict=True):
                if isinstance(extent, tirx.Var):
                    self.variables.setdefault(extent, size)
        self._read(function.body)

    def _read(self, statement: Any) -> None:
        if isinstance(statement, tirx.SeqStmt):
            for each in statement.seq:
                self._read(each)
        elif isinstance(statement, tirx.Bind):
            self.variables[statement.var] = self._size(statement.value)
        elif isinstance(statement, tirx.DeclBuffer):
            self.views[statement.buffer] = self._owner(statement.data)
        elif isinstance(statement, tirx.AllocBuffer):
            self.allocations.add(statement.buffer)
            self.buffers[statement.buffer] = self._workspace(statement.buffer)
        elif isinstance(statement, tirx.AttrStmt):
            self._read(statement.body)
        elif isinstance(statement, tirx.IfThenElse):
            self._branch(statement)
        elif isinstance(statement, tirx.For):
            self._loop(statement)
        elif isinstance(statement, tirx.Evaluate):
            if isinstance(statement.value, tvm.ir.Call):
                self._launch(statement.value)
        else:
            raise self._refusal(type(statement).__name__)

    def _branch(self, statement: Any) -> None:
        condition = self._size(statement.condition)
        if not isinstance(condition, int):
            raise self._refusal("a branch over sizes")
        taken = statement.then_case if condition else statement.else_case
        if taken is not None:
            self._read(taken)

    def _loop(self, statement: Any) -> None:
        start, extent = self._size(statement.min), self._size(statement.extent)
        if not isinstance(start, int) or not isinstance(extent, int):
            raise self._refusal("a loop over sizes")
        for value in range(start, start + extent):
            self.variables[statement.loop_var] = value
            self._read(statement.body)

    def _launch(self, call: Any) -> None:
        if str(call.op.name) != "tirx.call_ffi_kernel":
            raise self._refusal(str(call.op.name))
        name, *operands = call.args
        kernel = self.kernels[str(name.value)]
        axes = [str(axis) for axis in call.attrs.launch_params]
        sizes = [self._size(operand) for operand in operands[len(operands) - len(axes) :]]
        grid: list[Expression] = [1, 1, 1]
        threads = [1, 1, 1]
        for axis, size in zip(axes, sizes, strict=True):
            kind, _, letter = axis.partition(".")
            if kind == "blockIdx":
                grid["xyz".index(letter)] = size
            elif kind == "threadIdx" and isinstance(size, int):
                threads["xyz".index(letter)] = size
            else:
                raise self._refusal(f"{axis} of {size}")
        pairs = list(zip(operands[: len(operands) - len(axes)], kernel.parameters, strict=True))
        arguments = self._arguments(pairs)
        number = self.extractor.add_kernel(
            Kernel(
                name=kernel.name,
                file=kernel.file,
                parameters=kernel.parameters,
                threads=(threads[0], threads[1], threads[2]),
                shared_bytes=kernel.shared_bytes,
            )
        )
        self.extractor.steps.append(
            Step(kernel=number, arguments=tuple(arguments), grid=(grid[0], grid[1], grid[2]))
        )

    def _arguments(self, pairs: Sequence[tuple[Any, Parameter]]) -> list[Argument]:
        """Operands as arguments; a workspace that a kernel both reads and writes is two from there on.

        TVM lets a result take the place of an operand whose last reader makes it. Kernels declare which of
        their buffers they only read, and WebGPU refuses memory that is bound as both.
        """
        read = {self._owner(operand) for operand, each in pairs if each.buffer and not each.written}
        found = [None if each.written else self._argument(operand, each) for operand, each in pairs]
        for operand, each in pairs:
            owner = self._owner(operand) if each.written else None
            if owner in read and owner in self.allocations:
                self.buffers[owner] = self._workspace(owner)
        return [
            self._argument(operand, each) if argument is None else argument
            for argument, (operand, each) in zip(found, pairs, strict=True)
        ]

    def _argument(self, operand: Any, parameter: Parameter) -> Argument:
        if not parameter.buffer:
            return Scalar(cast("ScalarDType", parameter.dtype), self._size(operand))
        tensor = self._memory(operand)
        if parameter.written:
            self.extractor.note_written(tensor)
        return self.extractor.number(tensor)

    def _memory(self, operand: Any) -> Tensor:
        """The tensor behind a pointer: a buffer, or the data of one."""
        return self.buffers[self._owner(operand)]

    def _owner(self, operand: Any) -> Any:
        """The parameter or allocation behind a pointer."""
        buffer = operand if isinstance(operand, tirx.Var) else operand.args[0]
        return self.views.get(buffer, buffer)

    def _workspace(self, buffer: Any) -> Tensor:
        """Memory of this call alone; those of other calls share it."""
        # TVM makes a buffer that is accessed by vectors alone one of vectors.
        dtype, _, lanes = str(buffer.ty.dtype).partition("x")
        size: Expression = ITEM_BYTES[dtype] * int(lanes or 1)
        for extent in buffer.ty.shape:
            factor = self._size(extent)
            both = isinstance(size, int) and isinstance(factor, int)
            size = cast("int", size) * cast("int", factor) if both else ("*", size, factor)
        key = (self.allocated, size)
        self.allocated += 1
        if key not in self.workspaces:
            self.workspaces[key] = self.extractor.add_storage(size)
        shape = tuple(self._size(extent) for extent in buffer.ty.shape)
        return Tensor(
            place=Place.STORAGE,
            index=self.workspaces[key],
            dtype=cast("PlanDType", dtype),
            shape=(*shape, int(lanes)) if lanes else shape,
        )

    def _size(self, value: Any) -> Expression:
        return to_expression(value, self.variables)

    def _refusal(self, what: str) -> AssayError:
        return AssayError(f"The launches of {self.name} cannot be planned: they have {what}.")


def _parameters(function: Any) -> tuple[Parameter, ...]:
    written = written_parameters(function)
    found = []
    for position, parameter in enumerate(function.params):
        pointer = isinstance(parameter.ty, tvm.ir.PointerType)
        dtype = str(parameter.ty.element_type.dtype if pointer else parameter.ty.dtype)
        dtype = dtype.partition("x")[0]  # vectors, where it is accessed by vectors alone
        known = get_args(PlanDType) if pointer else get_args(ScalarDType)
        if dtype not in known:
            raise AssayError(f"A kernel takes {parameter.name} of {dtype}, which no launch plan can pass.")
        found.append(Parameter(dtype=cast("PlanDType", dtype), buffer=pointer, written=position in written))
    return tuple(found)


def _shared_bytes(function: Any) -> int:
    """Bytes that the threads of one group share."""
    total = 0
    for statement in statements(function.body):
        if isinstance(statement, tirx.AllocBuffer) and str(statement.buffer.scope()).startswith("shared"):
            # TVM makes a buffer that is accessed by vectors alone one of vectors.
            dtype, _, lanes = str(statement.buffer.ty.dtype).partition("x")
            count = ITEM_BYTES[dtype] * int(lanes or 1)
            for extent in statement.buffer.ty.shape:
                count *= as_int(extent) or 0
            total += count
    return total
