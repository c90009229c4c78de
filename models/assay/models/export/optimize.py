"""Graph optimisation by ONNX Runtime at its basic level: constants folded, no-ops gone, norms in kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError
from assay.models.export.strip import names_in_subgraphs
from assay.models.export.weights import save, tensor_bytes, without_initializers

if TYPE_CHECKING:
    import onnx

__all__ = ["optimize"]

# It wraps a matrix multiplication of more than two dimensions in reshapes to make a Gemm of it.
_DISABLED = ["MatMulAddFusion"]

# Where the optimiser has nothing to fold, weights of at least these bytes are kept from it, for time:
# positions of such weights by operator.
_HELD_BYTES = 1 << 20
_HELD_POSITIONS = {"MatMul": (0, 1), "Gemm": (0, 1), "Gather": (0,)}

# Weights in fewer bits than float32 are kept from it too, which would widen them: element types, and what
# reads such weights.
_STORED_TYPES = (2, 10, 16)  # onnx.TensorProto.UINT8, FLOAT16, BFLOAT16
_STORED_READERS = frozenset({"Cast", "Gather", "GatherBlockQuantized", "MatMulNBits", "Reshape"})


def optimize(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """``model`` after ONNX Runtime's basic optimisations, which use standard operators only.

    The large weights of matrix products and tables are not looked at, and those that are stored in fewer bits
    than float32 stay so. ``model`` is used up; temporary files
    go into ``folder``. Raises ModelError when ONNX Runtime cannot load the model.
    """
    import onnx

    source, result = folder / "source.onnx", folder / "optimized.onnx"
    held = _held_weights(model) | _stored_weights(model)
    declared = {value.name for value in model.graph.input}
    save(_with_inputs(model, held), source, "source.bin")
    _run_optimizer(source, result)
    found = onnx.load_model(result).graph
    # Into the old model, in which the large weights stay where they are.
    graph = model.graph
    for index in reversed([i for i, tensor in enumerate(graph.initializer) if tensor.name not in held]):
        del graph.initializer[index]
    graph.initializer.extend(found.initializer)
    del graph.node[:], graph.input[:], graph.sparse_initializer[:]
    graph.node.extend(found.node)
    graph.input.extend(value for value in found.input if value.name in declared)
    graph.sparse_initializer.extend(found.sparse_initializer)
    return model


def _held_weights(model: onnx.ModelProto) -> set[str]:
    """Names of the weights that are only read where nothing folds them."""
    held = {tensor.name for tensor in model.graph.initializer if tensor_bytes(tensor) >= _HELD_BYTES}
    held -= {value.name for value in model.graph.output}
    for node in model.graph.node:
        places = _HELD_POSITIONS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
        held -= {name for position, name in enumerate(node.input) if position not in places}
        held -= names_in_subgraphs(node)
    return held


def _stored_weights(model: onnx.ModelProto) -> set[str]:
    """Names of the weights that are stored in fewer bits, and that nothing but their widening reads."""
    stored = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type in _STORED_TYPES and len(tensor.dims) >= 2
    }
    stored -= {value.name for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type not in _STORED_READERS:
            stored -= set(node.input)
        stored -= names_in_subgraphs(node)
    return stored


def _with_inputs(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy of ``model`` in which the initializers ``names`` are inputs."""
    import onnx

    copy = without_initializers(model)
    for tensor in model.graph.initializer:
        if tensor.name in names:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            copy.graph.input.append(value)
        else:
            copy.graph.initializer.append(tensor)
    return copy


def _run_optimizer(source: Path, result: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(result)
    # One thread, so that sums folded into constants are always added in the same order.
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if source.with_suffix(".bin").exists():
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", result.with_suffix(".bin").name
        )
    try:
        onnxruntime.InferenceSession(
            str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=_DISABLED
        )
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"ONNX Runtime cannot load the model: {reason}") from error
