"""TVM's foreign-function package, imported without dragging torch or CUDA's bindings in."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from assay.errors import MissingDependencyError

__all__ = ["import_tvm_ffi"]

_HIDDEN = frozenset({"torch", "cuda.bindings"})
_lock = threading.Lock()


class _Blocker:
    """A finder that tells one thread, and no other, that what ``_HIDDEN`` names is not installed."""

    def __init__(self, thread: int) -> None:
        self.thread = thread

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in _HIDDEN and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"{name} is not wanted here", name=name)
        return None


def import_tvm_ffi() -> Any:
    """The module ``tvm_ffi``.

    It imports torch where that is installed, which takes seconds and hundreds of megabytes, and works as well
    without: torch's tensors pass through DLPack all the same. It imports CUDA's bindings, which takes longer
    than all the rest, only to know their streams among the arguments of a call, and no call here has one. So
    both are hidden from it, and from this thread alone, while it is imported; what is imported already stays.
    Raises MissingDependencyError.
    """
    with _lock:
        if "tvm_ffi" in sys.modules:
            return sys.modules["tvm_ffi"]
        blocker = _Blocker(threading.get_ident())
        sys.meta_path.insert(0, blocker)
        try:
            return importlib.import_module("tvm_ffi")
        except ModuleNotFoundError as error:
            raise MissingDependencyError(error.name or "apache-tvm-ffi", "compile") from error
        finally:
            sys.meta_path.remove(blocker)
