"""A device that the CPU plays: kernels in CUDA C++ or MSL, compiled with headers of ours.

What it shows is that loops, indices and barriers are right. The device's own code is never executed by it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.compile.emulation.gpu.kernels import EmulatedKernels, KernelArgument, Language
from assay.errors import DeviceError
from assay.runtime.devices.device import Buffer, DeviceInfo, Launch
from assay.runtime.devices.metal import pack_scalar

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = ["EmulatedBuffer", "EmulatedDevice"]

_LANGUAGES: Mapping[str, Language] = {
    ".cu": Language.CUDA,
    ".cubin": Language.CUDA,  # emulated from the source beside it
    ".metal": Language.METAL,
}
_SOURCES: Mapping[Language, str] = {Language.CUDA: ".cu", Language.METAL: ".metal"}
_SCALARS: Mapping[str, Any] = {"int32": ctypes.c_int32, "uint32": ctypes.c_uint32, "int64": ctypes.c_int64}
_GUARD_BYTES = 256
_ALIGNMENT = 256  # as GPUs' allocators align at least
_POISON = 0x7F


class EmulatedBuffer:
    """Memory that starts as poison, with guards on both sides that nothing may write."""

    def __init__(self, nbytes: int) -> None:
        self._bytes = nbytes
        room = nbytes + 2 * _GUARD_BYTES + _ALIGNMENT
        memory = np.full(room, _POISON, np.uint8)
        start = -(memory.ctypes.data + _GUARD_BYTES) % _ALIGNMENT + _GUARD_BYTES
        self._before = memory[start - _GUARD_BYTES : start]
        self.data = memory[start : start + nbytes]
        self._behind = memory[start + nbytes : start + nbytes + _GUARD_BYTES]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self._bytes

    def intact(self) -> bool:
        """Whether nothing was written beside the buffer."""
        return bool((self._before == _POISON).all() and (self._behind == _POISON).all())


@dataclass(frozen=True, kw_only=True)
class _Program:
    built: EmulatedKernels
    language: Language
    kernels: tuple[Kernel, ...]


class EmulatedDevice:
    """A device for tests and for builds whose device is not there.

    Compiled kernels are kept in ``folder``. ``warp_size``: lanes that exchange values. With ``reverse``,
    threads of a block are resumed in the opposite order: results differ where a barrier is missing.
    """

    def __init__(self, folder: Path, *, warp_size: int = 32, reverse: bool = False) -> None:
        self.info = DeviceInfo(api="emulated", index=0, name="CPU through headers", emulated=True)
        self._folder, self._warp_size, self._reverse = folder, warp_size, reverse

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        """Memory that starts as poison."""
        return EmulatedBuffer(nbytes)

    def free(self, buffer: Buffer) -> None:
        """Check that nothing was written beside it."""
        _own(buffer)

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy in."""
        _own(buffer).data[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy out."""
        array.reshape(-1).view(np.uint8)[:] = _own(buffer).data[: array.nbytes]

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> _Program:
        """The source of all kernels, which lie in one file. Raises EmulatorError, DeviceError."""
        names = {kernel.file or "" for kernel in kernels}
        if len(names) != 1:
            raise DeviceError(f"Kernels are emulated from one file, not from {len(names)}.")
        file = PurePosixPath(names.pop())
        language = _LANGUAGES.get(file.suffix)
        if language is None:
            raise DeviceError(
                f"Kernels in {file.name} cannot be emulated: they are neither CUDA C++ nor MSL."
            )
        source = str(file.with_suffix(_SOURCES[language]))
        if source not in files:
            raise DeviceError(f"The source {source} is not there.")
        built = EmulatedKernels(
            files[source].decode(),
            sorted({kernel.name for kernel in kernels}),
            language,
            self._folder,
            warp_size=self._warp_size,
        )
        return _Program(built=built, language=language, kernels=tuple(kernels))

    def record(self, program: _Program, launches: Sequence[Launch]) -> _Recording:
        """The launches as they are."""
        return _Recording(program=program, launches=tuple(launches), reverse=self._reverse)

    def synchronize(self) -> None:
        """Every launch has ended when it returns."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, kw_only=True)
class _Recording:
    program: _Program
    launches: tuple[Launch, ...]
    reverse: bool

    def run(self) -> None:
        for launch in self.launches:
            self._run(launch)

    def times(self) -> list[float]:
        seconds = []
        for launch in self.launches:
            start = perf_counter()
            self._run(launch)
            seconds.append(perf_counter() - start)
        return seconds

    def _run(self, launch: Launch) -> None:
        if not all(launch.grid):
            return
        kernel = self.program.kernels[launch.kernel]
        arguments = _arguments(kernel, launch, self.program.language)
        threads = kernel.threads or (1, 1, 1)
        self.program.built.launch(kernel.name, launch.grid, threads, arguments, reverse=self.reverse)
        for number, argument in enumerate(launch.arguments):
            if isinstance(argument, EmulatedBuffer) and not argument.intact():
                raise DeviceError(f"The kernel {kernel.name} writes beside its argument {number}.")


def _arguments(kernel: Kernel, launch: Launch, language: Language) -> list[KernelArgument]:
    """Pointers and scalars as the kernel takes them: Metal's scalars are one structure behind the buffers."""
    pointers: list[KernelArgument] = []
    scalars: list[KernelArgument] = []
    packed = b""
    for parameter, argument in zip(kernel.parameters, launch.arguments, strict=True):
        if not isinstance(argument, int):
            pointers.append(ctypes.c_void_p(_own(argument).data.ctypes.data))
        elif language is Language.METAL:
            packed += pack_scalar(parameter.dtype, argument)
        else:
            scalars.append(_SCALARS[parameter.dtype](argument))
    if packed:
        scalars.append((ctypes.c_char * len(packed)).from_buffer_copy(packed))
    return pointers + scalars


def _own(buffer: Buffer) -> EmulatedBuffer:
    if not isinstance(buffer, EmulatedBuffer):
        raise DeviceError("The buffer is not of an emulated device.")
    return buffer
