"""The driver of launch plans on the CPU: calls the kernels of a library one after the other.

The calling convention is TVM's: ``int __tvm_ffi_NAME(void*, TVMFFIAny* arguments, int32_t count, TVMFFIAny*
result)``, where a TVMFFIAny is 16 bytes, a type index and a value, and tensors are pointers to DLTensor
(https://dmlc.github.io/dlpack/latest/c_api.html). Kernels import few functions, which the loader of TVM's
ffi gives them: ``TVMBackendParallelLaunch``, ``TVMBackendAllocWorkspace``, ``TVMBackendFreeWorkspace`` and
``TVMFFIErrorSetRaisedFromCStrParts``.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ArtifactError
from assay.runtime.bound_plan import BoundPlan, Shape, bind
from assay.runtime.memory import empty_aligned
from assay.runtime.packing import ALIGNMENT
from assay.runtime.plan import Flavour, Place, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["CpuCalls", "KernelLibrary"]

_INT, _TENSOR = 1, 7  # kTVMFFIInt, kTVMFFIDLTensorPtr
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}  # DLDataTypeCode
_CPU = 1
_MOST_BOUND = 16  # sets of input shapes that are kept ready


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


class KernelLibrary:
    """The kernels of a plan in a shared library that is loaded, by their order in the plan.

    ``path``: of the library, whose imports the process must have. Raises ArtifactError where a kernel is
    missing.
    """

    def __init__(self, path: str, plan: Plan) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise ArtifactError(f"The library {path} cannot be loaded: {error}") from error
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

    ``weights``: in the order of the plan, contiguous, 64-byte aligned. ``failure`` gives the message of the
    error that a kernel raised. Raises ArtifactError for a plan of another flavour or other weights.
    """

    def __init__(
        self,
        plan: Plan,
        library: KernelLibrary,
        weights: Sequence[npt.NDArray[Any]],
        failure: Callable[[], str],
    ) -> None:
        if plan.flavour is not Flavour.CPU:
            raise ArtifactError(f"The launch plan is for a {plan.flavour}, not for the CPU.")
        if len(weights) != len(plan.weights):
            raise ArtifactError(f"The launch plan takes {len(plan.weights)} weights, not {len(weights)}.")
        self._plan, self._library, self._weights, self._failure = plan, library, list(weights), failure
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
                    raise ArtifactError(f"A kernel failed: {self._failure()}")
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


def is_aligned(array: npt.NDArray[Any]) -> bool:
    """Whether kernels may read ``array`` where it is."""
    return bool(array.flags.c_contiguous) and array.ctypes.data % ALIGNMENT == 0
