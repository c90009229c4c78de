"""Kernels compiled to WebAssembly, called in wasmtime.

A kernel is ``__tvm_ffi_NAME(self, arguments, count, result) -> status`` with 32-bit pointers. An argument is
16 bytes (TVMFFIAny of tvm-ffi's ``c_api.h``): an int32 type index, 4 bytes of padding, 8 bytes of value. A
tensor is a DLTensor of 40 bytes (``dlpack.h``) whose shape and strides are int64.

Memory from the bottom: the linker's stack and constants, what ``keep`` gave for good, what ``allocate`` gave
until the next ``release``, and above all that the workspaces of the kernel that runs.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ArtifactError, AssayError, CapacityError, MissingDependencyError
from assay.runtime.drivers.wasm_math import MATH

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ALIGNMENT", "IMPORTED", "PREFIX", "WasmModule", "WasmTensor", "wasm_engine"]

ALIGNMENT = 64
PREFIX = "__tvm_ffi_"
"""What the names of kernels begin with."""

_PAGE = 65536
_LIMIT = 1 << 32
# tvm-ffi's type indices.
_INT, _DLTENSOR = 1, 7
_CPU = 1
# DLPack's type codes.
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}


class WasmTensor:
    """A tensor in the memory of a module, made by ``WasmModule.tensor``: addresses of data and DLTensor."""

    def __init__(self, data: int, header: int, shape: tuple[int, ...], dtype: str) -> None:
        self.data = data
        self.header = header
        self.shape = shape
        self.dtype = dtype


class WasmModule:
    """An instance of the module at ``path``. Not for several threads at once.

    Raises ArtifactError for what is no such module, MissingDependencyError without wasmtime.
    """

    def __init__(self, path: Path) -> None:
        try:
            import wasmtime
        except ModuleNotFoundError as error:
            raise MissingDependencyError("wasmtime", "wasm") from error
        config = wasmtime.Config()
        config.wasm_simd = True
        config.wasm_relaxed_simd = True
        engine = wasmtime.Engine(config)
        self._store = wasmtime.Store(engine)
        linker = wasmtime.Linker(engine)
        self._message = ""
        try:
            module = wasmtime.Module.from_file(engine, str(path))
            for item in module.imports:
                linker.define_func(item.module, item.name, item.type, self._imported(item.name))
            exports = linker.instantiate(self._store, module).exports(self._store)
            self._memory = exports["memory"]
            self._table = exports.get("__indirect_function_table")
            base = exports["__heap_base"].value(self._store)
        except (wasmtime.WasmtimeError, wasmtime.Trap, KeyError, OSError) as error:
            raise ArtifactError(f"{path.name} cannot be loaded: {_first_line(error)}") from error
        self._failures = (wasmtime.Trap, wasmtime.WasmtimeError)
        self._exports = exports
        self._kept = self._top = self._work = _aligned(base)
        self._room = self._memory.size(self._store) * _PAGE

    def keep(self, size: int) -> int:
        """The address of ``size`` bytes that are there for good. What ``allocate`` gave before is lost."""
        address = self._kept
        self._kept = self._top = self._work = self._reserve(address, size)
        return address

    def allocate(self, size: int) -> int:
        """The address of ``size`` bytes, aligned, until the next ``release``. Raises CapacityError."""
        address = self._top
        self._top = self._work = self._reserve(address, size)
        return address

    def release(self) -> None:
        """Give back all that ``allocate`` gave."""
        self._top = self._work = self._kept

    def bytes_at(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """``size`` bytes of memory as an array, until more memory is reserved."""
        buffer = self._memory.get_buffer_ptr(self._store, size, address)
        return np.frombuffer(buffer, np.uint8)

    def tensor(self, data: int, shape: Sequence[int], dtype: str) -> WasmTensor:
        """A tensor of data at ``data``; its DLTensor is allocated. ``dtype`` is NumPy's name of it."""
        rank = len(shape)
        header = self.allocate(40 + 16 * rank)
        strides: list[int] = []
        step = 1
        for extent in reversed(shape):
            strides.insert(0, step)
            step *= extent
        name = dtype.rstrip("0123456789")
        bits = int(dtype[len(name) :] or 8)
        at = header + 40
        packed = struct.pack(
            "<IiiiBBHIIxxxxQ", data, _CPU, 0, rank, _CODES[name], bits, 1, at, at + 8 * rank, 0
        )
        packed += struct.pack(f"<{2 * rank}q", *shape, *strides)
        self.bytes_at(header, len(packed))[:] = np.frombuffer(packed, np.uint8)
        return WasmTensor(data, header, tuple(shape), dtype)

    def view(self, tensor: WasmTensor) -> npt.NDArray[Any]:
        """The elements of ``tensor`` where they are, until more memory is reserved."""
        dtype = np.dtype(tensor.dtype)
        raw = self.bytes_at(tensor.data, math.prod(tensor.shape) * dtype.itemsize)
        return raw.view(dtype).reshape(tensor.shape)

    def prepare(self, kernel: str, arguments: Sequence[WasmTensor | int]) -> Callable[[], None]:
        """A call of ``kernel`` (without PREFIX) with tensors and integers, to be made again and again.

        Its arguments are allocated. Raises ArtifactError where there is none of that name, as the call does
        where the kernel ends with an error.
        """
        try:
            function = self._exports[PREFIX + kernel]
        except KeyError:
            raise ArtifactError(f"The module has no kernel {kernel!r}.") from None
        packed = b"".join(
            struct.pack("<IIq", _INT, 0, value)
            if isinstance(value, int)
            else struct.pack("<IIq", _DLTENSOR, 0, value.header)
            for value in arguments
        )
        # The result comes behind the arguments.
        place, size = self.allocate(len(packed) + 16), len(packed)
        self.bytes_at(place, size)[:] = np.frombuffer(packed, np.uint8)
        numbers = (0, _signed(place), len(arguments), _signed(place + size))

        def call() -> None:
            try:
                status = function(self._store, *numbers)
            except self._failures as error:
                raise ArtifactError(f"Kernel {kernel!r} stopped: {_first_line(error)}") from error
            if status:
                raise ArtifactError(f"Kernel {kernel!r} failed: {self._message or f'status {status}'}")

        return call

    def _reserve(self, address: int, size: int) -> int:
        """The first aligned address behind ``size`` bytes from ``address`` on, which are there afterwards."""
        end = _aligned(address + size)
        if end > self._room:
            # A little more than is wanted: growing is a call.
            pages = -(-(end - self._room) // _PAGE)
            if end > _LIMIT:
                raise CapacityError(
                    f"WebAssembly addresses {_LIMIT >> 20} MiB; {end >> 20} MiB are needed.",
                    hint="Choose smaller inputs, or a scheme with smaller weights.",
                )
            try:
                self._memory.grow(self._store, pages)
            except Exception as error:
                raise CapacityError(f"There are no {end >> 20} MiB for WebAssembly: {error}") from error
            self._room = self._memory.size(self._store) * _PAGE
        return end

    def _imported(self, name: str) -> Callable[..., Any]:
        """What the module imports under ``name``. Raises ArtifactError for what is not known here."""
        known = {**_functions(self), **MATH}
        if name not in known:
            raise ArtifactError(f"The module imports {name!r}, which is not known here.")
        return known[name]

    def _text(self, address: int) -> str:
        """A string of C."""
        start = ctypes.addressof(self._memory.data_ptr(self._store).contents) + address % _LIMIT
        return ctypes.string_at(start).decode(errors="replace")

    def _fail(self, kind: int, message: int) -> None:
        self._message = f"{self._text(kind)}: {self._text(message)}"

    def _fail_in_parts(self, kind: int, parts: int, count: int) -> None:
        addresses = self.bytes_at(parts % _LIMIT, 4 * count).view(np.uint32)
        self._message = f"{self._text(kind)}: {''.join(self._text(int(part)) for part in addresses)}"

    def _take_workspace(self, device: int, number: int, size: int, code: int, bits: int) -> int:
        address = self._work
        try:
            self._work = self._reserve(address, size)
        except AssayError as error:
            self._message = error.message
            return 0
        return _signed(address)

    def _free_workspace(self, device: int, number: int, address: int) -> int:
        # Kernels give back what they took last first.
        self._work = address % _LIMIT
        return 0

    def _launch(self, function: int, data: int, tasks: int) -> int:
        """A parallel loop, in one task."""
        group = self._work
        self._work = self._reserve(group, 8)
        # TVMParallelGroupEnv: a handle, and the number of tasks.
        self.bytes_at(group, 8)[:] = np.frombuffer(struct.pack("<Ii", 0, 1), np.uint8)
        status = int(self._table.get(self._store, function)(self._store, 0, _signed(group), data))
        self._work = group
        return status


def wasm_engine() -> str | None:
    """What executes WebAssembly here, and its version; None where it is not installed."""
    try:
        return f"wasmtime {importlib.metadata.version('wasmtime')}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _functions(module: WasmModule) -> dict[str, Callable[..., Any]]:
    return {
        "TVMFFIErrorSetRaisedFromCStr": module._fail,
        "TVMFFIErrorSetRaisedFromCStrParts": module._fail_in_parts,
        "TVMBackendAllocWorkspace": module._take_workspace,
        "TVMBackendFreeWorkspace": module._free_workspace,
        "TVMBackendParallelLaunch": module._launch,
        # Of TVM's start-up code, which is linked in and never runs.
        "TVMFFIEnvModRegisterSystemLibSymbol": lambda *arguments: 0,
    }


IMPORTED = (
    "TVMFFIErrorSetRaisedFromCStr",
    "TVMFFIErrorSetRaisedFromCStrParts",
    "TVMBackendAllocWorkspace",
    "TVMBackendFreeWorkspace",
    "TVMBackendParallelLaunch",
    "TVMFFIEnvModRegisterSystemLibSymbol",
    *MATH,
)
"""The functions that a module may import."""


def _aligned(address: int) -> int:
    return -(-address // ALIGNMENT) * ALIGNMENT


def _signed(address: int) -> int:
    """An address as the int32 that calls carry."""
    return address - _LIMIT if address >= _LIMIT // 2 else address


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."
