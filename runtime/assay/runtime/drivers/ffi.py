"""TVM's foreign-function package, imported without dragging torch in."""

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

_lock = threading.Lock()


class _TorchBlocker:
    """A finder that tells one thread, and no other, that torch is not installed."""

    def __init__(self, thread: int) -> None:
        self.thread = thread

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torch" and threading.get_ident() == self.thread:
            raise ModuleNotFoundError("torch is not wanted here", name=name)
        return None


def import_tvm_ffi() -> Any:
    """The module ``tvm_ffi``.

    It imports torch where that is installed, which takes seconds and hundreds of megabytes, and works as well
    without: torch's tensors pass through DLPack all the same. So torch is hidden from it, and from this
    thread alone, while it is imported; a torch that is imported already stays. Raises MissingDependencyError.
    """
    with _lock:
        if "tvm_ffi" in sys.modules:
            return sys.modules["tvm_ffi"]
        blocker = _TorchBlocker(threading.get_ident())
        sys.meta_path.insert(0, blocker)
        try:
            return importlib.import_module("tvm_ffi")
        except ModuleNotFoundError as error:
            raise MissingDependencyError(error.name or "apache-tvm-ffi", "compile") from error
        finally:
            sys.meta_path.remove(blocker)
