"""The driver for TVM's virtual machine: loads the compiled library and calls its entry point."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ArtifactError
from assay.runtime.artifact import Artifact
from assay.runtime.drivers.ffi import import_tvm_ffi
from assay.runtime.drivers.libm import load_libm
from assay.runtime.drivers.threads import call_with_threads
from assay.runtime.manifest import Entry, Manifest
from assay.runtime.memory import empty_aligned, writable_view
from assay.runtime.packing import ALIGNMENT

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
    """The compiled library of one level with its weights, ready to be called.

    Raises ArtifactError when the library cannot be loaded, or wants another TVM than this process has.
    """

    def __init__(self, artifact: Artifact, entry: Entry) -> None:
        manifest = artifact.manifest
        self._ffi = import_tvm_ffi()
        _check_ffi_version(manifest, self._ffi.__version__)
        _load_runtime(artifact)
        library = _library_path(artifact, entry.library)
        try:
            module = self._ffi.load_module(str(library))
            machine = module["vm_load_executable"]()
            machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
            self._function = machine[entry.function]
        except (AttributeError, RuntimeError, ValueError, OSError) as error:
            raise ArtifactError(f"{entry.library} cannot be loaded: {_first_line(error)}") from error
        self._machine = machine
        self._weights = artifact.weights()
        described = {weight.name: weight for weight in manifest.weights}
        weights = [described[name] for name in entry.weights]
        tensors = [self._tensor(self._weights[w.name], w.dtype) for w in weights]
        self._extra = (self._ffi.Array(tensors),) if tensors else ()
        self._spans = _joined(_span(t, w.bytes) for t, w in zip(tensors, weights, strict=True))
        self._tensor_type, self._from_dlpack = self._ffi.Tensor, self._ffi.from_dlpack
        self._lock = threading.Lock()
        self._copies: dict[int, tuple[npt.NDArray[Any], Any]] = {}

    def call(
        self,
        arrays: Sequence[npt.NDArray[Any]],
        threads: int,
        instrument: Callable[..., None] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``, computed by ``threads`` threads, this one included.

        Arrays that are contiguous and 64-byte aligned are used where they are. Calls from several threads
        take turns. ``instrument(function, name, before, result, *arguments)`` is called before and after
        every function that the virtual machine calls.
        """
        with self._lock:
            tensors = [self._pass_in(index, array) for index, array in enumerate(arrays)]
            if instrument is not None:
                self._machine["set_instrument"](instrument)
            try:
                result = call_with_threads(threads, self._function, *tensors, *self._extra)
            finally:
                if instrument is not None:
                    self._machine["set_instrument"](None)
        results = (result,) if isinstance(result, self._tensor_type) else result
        shared = [(tensor.data_ptr(), array.nbytes) for tensor, array in zip(tensors, arrays, strict=True)]
        spans = [(start, start + size) for start, size in shared] + self._spans
        return [_pass_out(tensor, spans) for tensor in results]

    def tensors(self, arrays: Iterable[npt.NDArray[Any]]) -> tuple[Any, ...]:
        """Tensors over the memory of ``arrays``, which they keep alive, for ``call_tensors``.

        Raises ValueError for an array that is not contiguous or not 64-byte aligned: nothing is copied.
        """
        tensors = tuple(self._from_dlpack(array) for array in arrays)
        for tensor in tensors:
            if not tensor.is_contiguous() or tensor.data_ptr() % ALIGNMENT:
                raise ValueError("an array is not contiguous, or not aligned to 64 bytes")
        return tensors

    def call_tensors(self, tensors: Sequence[Any], threads: int) -> list[npt.NDArray[Any]]:
        """Outputs for ``tensors``, in whose memory the code may write what it is compiled to write.

        For code that passes no input on as an output. Calls from several threads take turns.
        """
        with self._lock:
            result = call_with_threads(threads, self._function, *tensors, *self._extra)
        if isinstance(result, self._tensor_type):
            return [np.from_dlpack(result)]
        return [np.from_dlpack(tensor) for tensor in result]

    def is_weight(self, tensor: Any) -> bool:
        """Whether a tensor that a kernel was called with lies in the memory of the weights."""
        address = int(tensor.data_ptr())
        return any(start <= address < end for start, end in self._spans)

    def _pass_in(self, index: int, array: npt.NDArray[Any]) -> Any:
        """Input number ``index`` as a tensor, in its own memory or in memory kept for copies of it."""
        flags = array.flags
        if flags.c_contiguous:
            tensor = self._from_dlpack(array if flags.writeable else writable_view(array))
            if tensor.data_ptr() % ALIGNMENT == 0:
                return tensor
        kept = self._copies.get(index)
        if kept is None or kept[0].shape != array.shape:
            memory = empty_aligned(array.shape, array.dtype)
            kept = self._copies[index] = (memory, self._ffi.from_dlpack(memory))
        np.copyto(kept[0], array)
        return kept[1]

    def _tensor(self, array: npt.NDArray[Any], dtype: str) -> Any:
        tensor = self._ffi.from_dlpack(array)
        if dtype != "bfloat16":
            return tensor
        # NumPy has no bfloat16: the same bytes, seen with that dtype.
        view = self._ffi.get_global_func("runtime.TVMTensorCreateView")
        return view(tensor, self._ffi.Shape(array.shape), self._ffi.dtype(dtype), 0)


_loaded_libraries: dict[Path, str] = {}


def _library_path(artifact: Artifact, name: str) -> Path:
    """Where to load the compiled library ``name`` from.

    The dynamic loader knows libraries by path, and gives the old one again when the file behind a path was
    replaced: then a copy under another path is loaded.
    """
    digest = artifact.manifest.files[name].sha256
    path = artifact.path(name)
    if _loaded_libraries.setdefault(path, digest) == digest:
        return path
    return artifact.copied(name)


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
    name = artifact.manifest.tvm_runtime
    if name is None:
        raise ArtifactError("The artifact has no libtvm_runtime, which its code needs.")
    digest = artifact.manifest.files[name].sha256
    wanted = artifact.manifest.tools.get("apache-tvm")
    with _LoadedRuntime.lock:
        if _LoadedRuntime.digest is None and _runtime_is_present():
            _LoadedRuntime.version = _imported_tvm_version()
            _LoadedRuntime.digest = "imported"
        _load(partial(load_libm, ctypes.RTLD_GLOBAL), "libm")
        if _LoadedRuntime.digest is None:
            library = str(_installed_runtime(digest) or artifact.path(name))
            _load(partial(ctypes.CDLL, library, ctypes.RTLD_GLOBAL), library)
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
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("apache-tvm")
    except PackageNotFoundError:
        return None


def _load(load: Callable[[], ctypes.CDLL], library: str) -> None:
    try:
        load()
    except OSError as error:
        raise ArtifactError(f"The library {library} cannot be loaded: {_first_line(error)}") from error


def _span(tensor: Any, size: int) -> tuple[int, int]:
    """First address of a tensor of ``size`` bytes, and the one behind its last."""
    start = int(tensor.data_ptr())
    return start, start + size


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """One span over all of them: weights lie side by side in one mapping."""
    known = list(spans)
    return [(min(start for start, _ in known), max(end for _, end in known))] if known else []


def _pass_out(tensor: Any, shared: Iterable[tuple[int, int]]) -> npt.NDArray[Any]:
    """An output as an array, copied when it lies in ``shared`` memory: an input or weight passed on."""
    output = np.from_dlpack(tensor)
    start, end = _span(tensor, output.nbytes)
    for other_start, other_end in shared:
        if start < other_end and other_start < end:
            return output.copy()
    return output


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
