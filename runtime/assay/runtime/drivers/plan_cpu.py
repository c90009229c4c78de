"""The driver of launch plans on this machine's CPU: calls the kernels of a library one after the other.

The calling convention is TVM's: ``int __tvm_ffi_NAME(void*, TVMFFIAny* arguments, int32_t count, TVMFFIAny*
result)``, where a TVMFFIAny is 16 bytes, a type index and a value, and tensors are pointers to DLTensor
(https://dmlc.github.io/dlpack/latest/c_api.html). Kernels import few functions. TVM's ffi has the one that
says what went wrong; the others are here, and run everything on the calling thread: this driver is there to
show that a plan needs nothing else. ``assay.compile.native`` has one in C++, with threads.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ArtifactError, UsageError
from assay.runtime.bound_plan import BoundPlan, Shape, bind
from assay.runtime.drivers.ffi import import_tvm_ffi
from assay.runtime.drivers.libm import load_libm
from assay.runtime.memory import empty_aligned
from assay.runtime.packing import ALIGNMENT
from assay.runtime.plan import Flavour, Place, Plan, decode_plan

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.artifact import Artifact
    from assay.runtime.manifest import Entry

__all__ = ["CpuCalls", "KernelLibrary", "PlanOnCpu"]

_INT, _TENSOR = 1, 7  # kTVMFFIInt, kTVMFFIDLTensorPtr
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}  # DLDataTypeCode
_CPU = 1
_OBJECT_BYTES = 24  # of TVMFFIObject, which the cell of an error follows
_MOST_BOUND = 16  # sets of input shapes that are kept ready


class _ErrorCell(ctypes.Structure):
    """The begin of TVMFFIErrorCell: kind and message, each an address and a size."""

    _fields_ = (
        ("kind", ctypes.c_void_p),
        ("kind_size", ctypes.c_size_t),
        ("message", ctypes.c_void_p),
        ("message_size", ctypes.c_size_t),
    )


class Any_(ctypes.Structure):
    """TVMFFIAny: a type index, padding, and a value."""

    _fields_ = (("type_index", ctypes.c_int32), ("padding", ctypes.c_uint32), ("value", ctypes.c_int64))


class DLTensor(ctypes.Structure):
    """DLPack's tensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Function = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Any_), ctypes.c_int32, ctypes.POINTER(Any_)
)


_Task = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Group(ctypes.Structure):
    """TVMParallelGroupEnv: how tasks of one launch wait for each other, and how many there are."""

    _fields_ = (("sync_handle", ctypes.c_void_p), ("num_task", ctypes.c_int32))


_GROUP_OF_ONE = _Group(None, 1)


def _run_alone(task: Callable[..., int], data: int | None, _count: int) -> int:
    return task(0, ctypes.addressof(_GROUP_OF_ONE), data)


_parallel_launch = ctypes.CFUNCTYPE(ctypes.c_int, _Task, ctypes.c_void_p, ctypes.c_int)(_run_alone)


class _Workspaces:
    """Memory that kernels ask for, by address; given back, it is kept for the next that asks."""

    def __init__(self) -> None:
        self.free: dict[int, list[npt.NDArray[Any]]] = {}
        self.used: dict[int, npt.NDArray[Any]] = {}

    def allocate(self, _kind: int, _device: int, size: int, _code: int, _bits: int) -> int:
        kept = self.free.get(size)
        memory = kept.pop() if kept else empty_aligned((max(1, size),), np.dtype(np.uint8))
        self.used[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def give_back(self, _kind: int, _device: int, address: int) -> int:
        memory = self.used.pop(address)
        self.free.setdefault(memory.size, []).append(memory)
        return 0


_workspaces = _Workspaces()
_INT32 = ctypes.c_int32
_allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, _INT32, _INT32, ctypes.c_uint64, _INT32, _INT32)(
    _workspaces.allocate
)
_give_back = ctypes.CFUNCTYPE(ctypes.c_int, _INT32, _INT32, ctypes.c_void_p)(_workspaces.give_back)
# Libraries have a pointer for each that their loader sets.
_IMPORTS = {
    "__TVMBackendParallelLaunch": _parallel_launch,
    "__TVMBackendAllocWorkspace": _allocate,
    "__TVMBackendFreeWorkspace": _give_back,
}


class KernelLibrary:
    """The kernels of a plan in a shared library that is loaded here, by their order in the plan.

    Raises ArtifactError where it cannot be loaded, or lacks a kernel.
    """

    def __init__(self, path: str, plan: Plan) -> None:
        try:
            ctypes.CDLL(import_tvm_ffi().libinfo.find_libtvm_ffi(), ctypes.RTLD_GLOBAL)
            load_libm(ctypes.RTLD_GLOBAL)
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise ArtifactError(f"The library {path} cannot be loaded: {error}") from error
        for name, function in _IMPORTS.items():
            try:
                pointer = ctypes.c_void_p.in_dll(self._library, name)
            except ValueError:  # no kernel wants it
                continue
            pointer.value = ctypes.cast(function, ctypes.c_void_p).value
        self.functions = []
        for kernel in plan.kernels:
            try:
                self.functions.append(_Function((f"__tvm_ffi_{kernel.name}", self._library)))
            except AttributeError as error:
                raise ArtifactError(f"The library {path} has no kernel {kernel.name}.") from error


class _Prepared:
    """Calls at given shapes of the inputs: every argument laid out in memory once."""

    def __init__(self, bound: BoundPlan, library: KernelLibrary, weights: Sequence[npt.NDArray[Any]]) -> None:
        self.bound = bound
        self.tensors = (DLTensor * max(1, len(bound.tensors)))()
        self._sizes: list[tuple[Any, Any]] = []  # kept alive: the structures point at them
        self._owned: list[npt.NDArray[Any]] = []
        for structure, each in zip(self.tensors, bound.tensors, strict=False):
            self._describe(structure, each.dtype, each.shape, each.offset)
        self._of: dict[tuple[Place, int], list[int]] = {}
        for number, each in enumerate(bound.tensors):
            self._of.setdefault((each.place, each.index), []).append(number)
        for index, size in enumerate(bound.storages):
            if not bound.plan.storages[index].output:
                memory = empty_aligned((size,), np.dtype(np.uint8))
                self._owned.append(memory)
                self.place(Place.STORAGE, index, memory.ctypes.data)
        for index, weight in enumerate(weights):
            self.place(Place.WEIGHT, index, weight.ctypes.data)
        self.calls = [self._call(library.functions[step.kernel], step.arguments) for step in bound.steps]

    def place(self, place: Place, index: int, address: int) -> None:
        """Let the tensors of one memory lie at ``address``."""
        for number in self._of.get((place, index), ()):
            self.tensors[number].data = address + self.bound.tensors[number].offset

    def _describe(self, structure: DLTensor, dtype: str, shape: Shape, offset: int) -> None:
        kind = dtype.rstrip("0123456789")
        structure.device_type = _CPU
        structure.ndim = len(shape)
        structure.code = _CODES[kind]
        structure.bits = 8 if kind == "bool" else int(dtype[len(kind) :])
        structure.lanes = 1
        strides = [1]
        for size in reversed(shape[1:]):
            strides.insert(0, strides[0] * size)
        structure.shape = (ctypes.c_int64 * len(shape))(*shape)
        structure.strides = (ctypes.c_int64 * len(shape))(*strides[: len(shape)])
        self._sizes.append((structure.shape, structure.strides))

    def _call(
        self, function: Callable[..., int], arguments: Sequence[int | tuple[str, int]]
    ) -> tuple[Callable[..., int], Any, int]:
        values = (Any_ * max(1, len(arguments)))()
        for value, argument in zip(values, arguments, strict=False):
            if isinstance(argument, int):
                value.type_index = _TENSOR
                value.value = ctypes.addressof(self.tensors[argument])
            else:
                value.type_index, value.value = _INT, argument[1]
        return function, values, len(arguments)


class CpuCalls:
    """A plan on the CPU, ready to be called: its library and weights, and storages for each set of shapes.

    ``weights``: in the order of the plan, contiguous, 64-byte aligned. Raises ArtifactError for a plan of
    another flavour or other weights.
    """

    def __init__(self, plan: Plan, library: KernelLibrary, weights: Sequence[npt.NDArray[Any]]) -> None:
        if plan.flavour is not Flavour.CPU:
            raise ArtifactError(f"The launch plan is for a {plan.flavour}, not for the CPU.")
        if len(weights) != len(plan.weights):
            raise ArtifactError(f"The launch plan takes {len(plan.weights)} weights, not {len(weights)}.")
        self._plan, self._library, self._weights = plan, library, list(weights)
        self._prepared: dict[tuple[Shape, ...], _Prepared] = {}
        self._lock = threading.Lock()

    def call(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``, contiguous and 64-byte aligned; calls from several threads take turns.

        Kernels write into the inputs that the plan calls written. Raises ArtifactError where a kernel fails.
        """
        with self._lock:
            prepared = self._ready(tuple(array.shape for array in arrays))
            for index, array in enumerate(arrays):
                prepared.place(Place.INPUT, index, array.ctypes.data)
            kept = self._outputs(prepared)
            result = Any_()
            for function, values, count in prepared.calls:
                if function(None, values, count, ctypes.byref(result)):
                    raise ArtifactError(f"A kernel failed: {_raised()}")
        return [self._output(prepared, number, arrays, kept) for number in self._plan.outputs]

    def _ready(self, shapes: tuple[Shape, ...]) -> _Prepared:
        prepared = self._prepared.pop(shapes, None)
        if prepared is None:
            prepared = _Prepared(bind(self._plan, shapes), self._library, self._weights)
            while len(self._prepared) >= _MOST_BOUND:
                del self._prepared[next(iter(self._prepared))]
        self._prepared[shapes] = prepared  # the one used last comes last
        return prepared

    def _outputs(self, prepared: _Prepared) -> dict[int, npt.NDArray[Any]]:
        """Fresh memory for the outputs, by number of the storage."""
        kept = {}
        for index, storage in enumerate(self._plan.storages):
            if storage.output:
                memory = empty_aligned((prepared.bound.storages[index],), np.dtype(np.uint8))
                prepared.place(Place.STORAGE, index, memory.ctypes.data)
                kept[index] = memory
        return kept

    def _output(
        self,
        prepared: _Prepared,
        number: int,
        arrays: Sequence[npt.NDArray[Any]],
        kept: dict[int, npt.NDArray[Any]],
    ) -> npt.NDArray[Any]:
        """One output: its own memory, or a copy of an input or a weight that is passed on."""
        tensor = prepared.bound.tensors[number]
        if tensor.place is Place.STORAGE:
            memory = kept[tensor.index]
        else:
            source = (arrays if tensor.place is Place.INPUT else self._weights)[tensor.index]
            memory = source.reshape(-1).view(np.uint8).copy()
        part = memory[tensor.offset : tensor.offset + tensor.nbytes]
        return part.view(tensor.dtype).reshape(tensor.shape)


class PlanOnCpu:
    """The driver of a level with a launch plan and a library for this machine's CPU.

    Raises ArtifactError for a plan or a library that is damaged or does not fit the manifest.
    """

    def __init__(self, artifact: Artifact, entry: Entry) -> None:
        if entry.plan is None:
            raise ArtifactError(f"{entry.library} is a library of kernels without a launch plan.")
        plan = decode_plan(artifact.read(entry.plan))
        weights = artifact.weights()
        library = KernelLibrary(str(artifact.path(entry.library)), plan)
        self._calls = CpuCalls(plan, library, [weights[name] for name in entry.weights])
        self._written = plan.written_inputs

    def call(
        self,
        arrays: Sequence[npt.NDArray[Any]],
        threads: int,
        instrument: Callable[..., None] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``, computed by this thread, whatever ``threads`` says.

        An array that is not contiguous or not 64-byte aligned is copied, and written back where kernels
        write it. Raises UsageError with an ``instrument``.
        """
        if instrument is not None:
            raise UsageError("The kernels of this driver cannot be observed one by one.")
        aligned = [array if _is_aligned(array) else _aligned_copy(array) for array in arrays]
        outputs = self._calls.call(aligned)
        for number in self._written:
            if aligned[number] is not arrays[number] and arrays[number].flags.writeable:
                np.copyto(arrays[number], aligned[number])
        return outputs

    def is_weight(self, tensor: Any) -> bool:
        """Never: nothing shows the tensors of this driver."""
        return False


def _is_aligned(array: npt.NDArray[Any]) -> bool:
    return bool(array.flags.c_contiguous) and array.ctypes.data % ALIGNMENT == 0


def _aligned_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    copy = empty_aligned(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


def _raised() -> str:
    """The message of the error that a kernel left with TVM's ffi."""
    error = ctypes.c_void_p()
    library = ctypes.CDLL(import_tvm_ffi().libinfo.find_libtvm_ffi())
    library.TVMFFIErrorMoveFromRaised(ctypes.byref(error))
    if not error.value:
        return "it says no reason"
    cell = ctypes.cast(error.value + _OBJECT_BYTES, ctypes.POINTER(_ErrorCell)).contents
    message = ctypes.string_at(cell.message, cell.message_size).decode(errors="replace")
    library.TVMFFIObjectDecRef(error)
    return message
