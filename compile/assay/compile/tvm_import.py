"""Import TVM without torch: tvm_ffi imports torch wherever it is installed, for seconds and 200 MB."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from typing import Any

from assay.errors import MissingDependencyError

__all__ = ["import_tensor_intrinsics", "import_tvm"]


def import_tvm() -> Any:
    """The tvm package. Raises MissingDependencyError where the ``compile`` extra is not installed."""
    if "tvm" in sys.modules:
        return sys.modules["tvm"]
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tvm
            import tvm.relax.frontend.onnx
    except ModuleNotFoundError as error:
        raise MissingDependencyError("apache-tvm", "compile") from error
    finally:
        if hidden:
            del sys.modules["torch"]
    return tvm


def import_tensor_intrinsics() -> None:
    """Import ``tvm.s_tir.tensor_intrin``, fast: with an ``inspect.stack`` that reads no source files.

    It asks for the stack at every intrinsic, and Python's reads the sources of all frames for it.
    """

    def stack(context: int = 1) -> list[inspect.FrameInfo]:
        frames, frame = [], sys._getframe(1)
        current = frame
        while current is not None:
            code = current.f_code
            frames.append(
                inspect.FrameInfo(current, code.co_filename, current.f_lineno, code.co_name, None, None)
            )
            current = current.f_back  # type: ignore[assignment]
        return frames

    original = inspect.stack
    inspect.stack = stack
    try:
        importlib.import_module("tvm.s_tir.tensor_intrin")
    finally:
        inspect.stack = original
