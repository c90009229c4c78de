"""Import TVM without torch: tvm_ffi imports torch wherever it is installed, for seconds and 200 MB."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from assay.errors import MissingDependencyError

__all__ = ["import_tvm"]


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
