"""The canonical decoder ONNX from a configuration and weights. docs/decoders.md describes its form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError, StorageError
from assay.models.decoders.blocks import Cache, LayerBuilder, WeightReader
from assay.models.decoders.check import check_weights
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.embedding import Embedding
from assay.models.decoders.graph import MICROSOFT, Graph
from assay.models.decoders.initializers import InitializerWriter
from assay.models.decoders.interface import decoder_values
from assay.models.decoders.mapping import Naming, Role
from assay.models.decoders.rope import rotary_tables
from assay.models.decoders.weights import DecoderWeights

if TYPE_CHECKING:
    import onnx

__all__ = ["export_decoder"]

# RMSNormalization is of opset 23, which IR version 11 came with.
_OPSET = 23
_IR_VERSION = 11
_ROTATED_MULTIPLE = 16


def export_decoder(config: DecoderConfig, weights: DecoderWeights, path: Path, *, naming: Naming) -> None:
    """Write the decoder as ONNX to ``path``, its weights beside it as ``.bin`` when they are over 64 MiB.

    Weights are read and written one after the other. The same model gives the same bytes. Raises ModelError
    with all tensors that are missing, unexpected or of the wrong shape, before any is read, and for a
    rotation that ONNX Runtime cannot do; StorageError when the files cannot be written.
    """
    if config.rope is not None and config.rope.dim % _ROTATED_MULTIPLE:
        raise ModelError(
            f"The model rotates {config.rope.dim} elements of a head; ONNX Runtime's attention, which it is "
            f"compared with, rotates multiples of {_ROTATED_MULTIPLE}."
        )
    resolved = check_weights(config, weights, naming)
    reader = WeightReader(config, weights, resolved)
    try:
        with InitializerWriter(path.with_suffix(".bin")) as initializers:
            nodes = _nodes(config, reader, initializers)
        path.write_bytes(_model(config, nodes, initializers).SerializeToString(deterministic=True))
    except OSError as error:
        raise StorageError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


def _nodes(
    config: DecoderConfig, reader: WeightReader, initializers: InitializerWriter
) -> list[onnx.NodeProto]:
    graph = Graph(initializers)
    layers = LayerBuilder(graph, config, reader, _cache(graph, config, reader))
    embedding = Embedding(graph, Role.EMBEDDING.value, reader.matrix(Role.EMBEDDING))
    x = embedding.rows("input_ids", "embedding")
    if config.embedding_scale != 1.0:
        x = graph.node(
            "Mul", [x, graph.scalar("embedding_scale", config.embedding_scale)], "embedding.scaled"
        )
    if reader.has(Role.POSITION):
        positions = Embedding(graph, Role.POSITION.value, reader.matrix(Role.POSITION))
        x = graph.add(x, positions.rows("position_ids", "position"), "embedding.placed")
    if not config.tied:
        del embedding
    for layer in range(config.layers):
        x = layers.layer(x, layer)
    x = layers.norm(x, Role.NORM, Role.NORM_BIAS)
    _head(graph, config, reader, x, embedding if config.tied else None)
    return graph.nodes


def _cache(graph: Graph, config: DecoderConfig, reader: WeightReader) -> Cache:
    """Lengths from the mask, as onnxruntime-genai derives them, and tables of rotation."""
    import numpy as np
    import onnx

    axis = graph.constant("axis_1", np.array([1], np.int64))
    one = graph.constant("one", np.array(1, np.int64))
    lengths = graph.node("ReduceSum", ["attention_mask", axis], "lengths", keepdims=0)
    last = graph.node("Sub", [lengths, one], "last_positions")
    seqlens_k = graph.node("Cast", [last], "seqlens_k", to=onnx.TensorProto.INT32)
    shape = graph.node("Shape", ["attention_mask"], "attention_mask.shape")
    total = graph.node("Gather", [shape, one], "total")
    total = graph.node("Cast", [total], "total_sequence_length", to=onnx.TensorProto.INT32)
    if config.rope is None:
        return Cache(seqlens_k=seqlens_k, total_sequence_length=total)
    factors = reader.vector(Role.ROPE_FACTORS) if reader.has(Role.ROPE_FACTORS) else None
    cos, sin = rotary_tables(config.rope, config.context_length, factors)
    return Cache(
        seqlens_k=seqlens_k,
        total_sequence_length=total,
        cos=graph.constant("cos_cache", cos),
        sin=graph.constant("sin_cache", sin),
    )


def _head(
    graph: Graph, config: DecoderConfig, reader: WeightReader, x: str, embedding: Embedding | None
) -> None:
    """The nodes from the last norm to ``logits``."""
    bias, cap = reader.has(Role.HEAD_BIAS), config.logit_softcap
    product = "head.product" if bias or cap is not None else "logits"
    if embedding is not None:
        embedding.head(x, product)
    else:
        graph.linear(x, reader.matrix(Role.HEAD), Role.HEAD.value, product)
    if bias:
        shift = graph.vector(Role.HEAD_BIAS.value, reader.vector(Role.HEAD_BIAS))
        product = graph.add(product, shift, "logits" if cap is None else "head")
    if cap is not None:
        value = graph.scalar("logit_softcap", cap)
        divided = graph.node("Div", [product, value], "head.divided")
        graph.node("Mul", [graph.node("Tanh", [divided], "head.tanh"), value], "logits")


def _model(
    config: DecoderConfig, nodes: list[onnx.NodeProto], initializers: InitializerWriter
) -> onnx.ModelProto:
    import onnx

    inputs, outputs = decoder_values(config)
    graph = onnx.helper.make_graph(nodes, "main", inputs, outputs)
    graph.initializer.extend(initializers.tensors)
    opsets = [onnx.helper.make_opsetid("", _OPSET), onnx.helper.make_opsetid(MICROSOFT, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
