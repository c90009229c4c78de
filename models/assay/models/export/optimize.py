"""Graph optimisation by ONNX Runtime at its basic level: constants folded, no-ops gone, norms in kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["optimize"]

# It wraps a matrix multiplication of more than two dimensions in reshapes to make a Gemm of it.
_DISABLED = ["MatMulAddFusion"]


def optimize(source: Path) -> onnx.ModelProto:
    """The model at ``source`` after ONNX Runtime's basic optimisations, which use standard operators only.

    Temporary files are written beside it. Raises ModelError when ONNX Runtime cannot load the model.
    """
    import onnx
    import onnxruntime

    result = source.with_suffix(".optimized.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(result)
    # One thread, so that sums folded into constants are always added in the same order.
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if any(source.parent.glob(f"{source.stem}.bin")):
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{source.stem}.optimized.bin"
        )
    try:
        onnxruntime.InferenceSession(
            str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=_DISABLED
        )
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"ONNX Runtime cannot load the model: {reason}") from error
    return onnx.load_model(result)
