"""The driver for TVM's virtual machine: loads the compiled library and calls its entry point."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ArtifactError
from assay.runtime.artifact import Artifact
from assay.runtime.drivers.ffi import import_tvm_ffi
from assay.runtime.drivers.threads import call_with_threads
from assay.runtime.manifest import Manifest

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TvmVm"]

_CPU = 1
_POOLED_ALLOCATOR = 2
_MARKER = "vm.builtin.alloc_storage"  # a global function of libtvm_runtime


class _LoadedRuntime:
    """The one libtvm_runtime of this process: digest and TVM version of what is loaded."""

    lock = threading.Lock()
    digest: str | None = None
    version: str | None = None


class TvmVm:
    """One compiled library with its weights, ready to be called; not re-entrant.

    Raises ArtifactError when the library cannot be loaded, or wants another TVM than this process has.
    """

    def __init__(self, artifact: Artifact) -> None:
        manifest = artifact.manifest
        self._ffi = import_tvm_ffi()
        _check_ffi_version(manifest, self._ffi.__version__)
        _load_runtime(artifact)
        library = artifact.path(manifest.entry.library)
        try:
            module = self._ffi.load_module(str(library))
            machine = module["vm_load_executable"]()
            machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
            self._function = machine[manifest.entry.function]
        except (AttributeError, RuntimeError, ValueError, OSError) as error:
            raise ArtifactError(f"{manifest.entry.library} cannot be loaded: {_first_line(error)}") from error
        self._machine = machine
        self._weights = artifact.weights()
        spans = [_span(weight) for weight in self._weights.values()]
        self._weights_span = (min((s[0] for s in spans), default=0), max((s[1] for s in spans), default=0))
        tensors = [self._tensor(self._weights[w.name], w.dtype) for w in manifest.weights]
        self._extra = (self._ffi.Array(tensors),) if tensors else ()

    def call(self, arrays: Sequence[npt.NDArray[Any]], threads: int) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays`` (writable, contiguous, 64-byte aligned), computed by ``threads`` threads."""
        tensors = [self._ffi.from_dlpack(array) for array in arrays]
        result = call_with_threads(threads, self._function, *tensors, *self._extra)
        results = [result] if isinstance(result, self._ffi.Tensor) else list(result)
        shared = [*map(_span, arrays), self._weights_span]
        return [_owned(np.from_dlpack(tensor), shared) for tensor in results]

    def _tensor(self, array: npt.NDArray[Any], dtype: str) -> Any:
        tensor = self._ffi.from_dlpack(array)
        if dtype != "bfloat16":
            return tensor
        # NumPy has no bfloat16: the same bytes, seen with that dtype.
        view = self._ffi.get_global_func("runtime.TVMTensorCreateView")
        return view(tensor, self._ffi.Shape(array.shape), self._ffi.dtype(dtype), 0)


def _check_ffi_version(manifest: Manifest, installed: str) -> None:
    wanted = manifest.tools.get("apache-tvm-ffi")
    if wanted is not None and wanted != installed:
        raise ArtifactError(
            f"The artifact needs apache-tvm-ffi {wanted}; {installed} is installed.",
            hint=f"pip install apache-tvm-ffi=={wanted}, or build the artifact again with this Assay.",
        )


def _load_runtime(artifact: Artifact) -> None:
    """Make libtvm_runtime and libm global symbols of this process, once.

    Kernels find both there: they are linked against nothing.
    """
    name = artifact.manifest.entry.tvm_runtime
    digest = artifact.manifest.files[name].sha256
    wanted = artifact.manifest.tools.get("apache-tvm")
    with _LoadedRuntime.lock:
        if _LoadedRuntime.digest is None and _runtime_is_present():
            _LoadedRuntime.version = _imported_tvm_version()
            _LoadedRuntime.digest = "imported"
        _load_global(ctypes.util.find_library("m") or "libm.so.6")
        if _LoadedRuntime.digest is None:
            _load_global(str(_installed_runtime(digest) or artifact.path(name)))
            _LoadedRuntime.digest, _LoadedRuntime.version = digest, wanted
        elif _LoadedRuntime.digest != digest and (wanted is None or _LoadedRuntime.version != wanted):
            raise ArtifactError(
                f"The artifact needs TVM {wanted or 'of its own build'}; this process has loaded "
                f"{_LoadedRuntime.version or 'another'}, and can hold only one.",
                hint="Run it in another process, or build the artifact again with this Assay.",
            )


def _runtime_is_present() -> bool:
    function = import_tvm_ffi().get_global_func(_MARKER, allow_missing=True)
    return function is not None


def _installed_runtime(digest: str) -> Path | None:
    """The installed TVM's own libtvm_runtime, when it is the same file as the artifact's.

    Loading that one lets ``import tvm`` work later in this process: a second copy of the library aborts it.
    """
    try:
        spec = importlib.util.find_spec("tvm")
    except (ImportError, ValueError):  # hidden, or half imported
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "lib" / "libtvm_runtime.so"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        return None
    return path


def _imported_tvm_version() -> str | None:
    if "tvm" not in sys.modules:
        return None
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError:
        return None


def _load_global(library: str) -> None:
    try:
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ArtifactError(f"The library {library} cannot be loaded: {_first_line(error)}") from error


def _span(array: npt.NDArray[Any]) -> tuple[int, int]:
    """First address of a contiguous array, and the one behind its last."""
    return array.ctypes.data, array.ctypes.data + array.nbytes


def _owned(output: npt.NDArray[Any], shared: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
    """``output``, copied when it lies in memory that is not its own: an input or weight that is passed on."""
    start, end = _span(output)
    if any(start < other_end and other_start < end for other_start, other_end in shared):
        return output.copy()
    return output


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
