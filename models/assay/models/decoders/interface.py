"""The inputs and outputs of the canonical decoder, after the convention of onnxruntime-genai."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from assay.models.decoders.config import DecoderConfig
from assay.models.spec import Array, DType, InputSpec, SymbolicDim

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from assay.models.spec import RepresentativeInputs

__all__ = ["decoder_inputs", "decoder_outputs", "decoder_values", "representative_inputs"]

_MOST_SEQUENCES = 64


def decoder_inputs(config: DecoderConfig) -> tuple[InputSpec, ...]:
    """``input_ids``, ``position_ids`` where positions are learned, ``attention_mask``, the cache by layer.

    The mask is [batch, total] with total = past + tokens; past may be 0.
    """
    batch = SymbolicDim(name="batch", default=1, maximum=_MOST_SEQUENCES)
    tokens = SymbolicDim(name="tokens", default=min(8, config.context_length), maximum=config.context_length)
    past = SymbolicDim(name="past", default=0, minimum=0, maximum=config.context_length)
    total = SymbolicDim(name="total", default=tokens.default, maximum=config.context_length)
    ids = [InputSpec(name="input_ids", dtype=DType.INT64, shape=(batch, tokens))]
    if config.rope is None:
        ids.append(InputSpec(name="position_ids", dtype=DType.INT64, shape=(batch, tokens)))
    mask = InputSpec(name="attention_mask", dtype=DType.INT64, shape=(batch, total))
    shape = (batch, config.kv_heads, past, config.head_dim)
    cache = (
        InputSpec(name=f"past_key_values.{layer}.{part}", dtype=DType.FLOAT32, shape=shape)
        for layer in range(config.layers)
        for part in ("key", "value")
    )
    return (*ids, mask, *cache)


def decoder_outputs(config: DecoderConfig) -> tuple[tuple[str, tuple[int | str, ...]], ...]:
    """Names and shapes of the outputs, all float32: ``logits``, then the cache by layer."""
    cache = ("batch", config.kv_heads, "total", config.head_dim)
    return (
        ("logits", ("batch", "tokens", config.vocabulary)),
        *((f"present.{layer}.{part}", cache) for layer in range(config.layers) for part in ("key", "value")),
    )


def decoder_values(
    config: DecoderConfig,
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """The inputs and outputs as ONNX declares them."""
    import onnx

    inputs = [
        onnx.helper.make_tensor_value_info(
            spec.name,
            onnx.TensorProto.FLOAT if spec.dtype is DType.FLOAT32 else onnx.TensorProto.INT64,
            [dim.name if isinstance(dim, SymbolicDim) else dim for dim in spec.shape],
        )
        for spec in decoder_inputs(config)
    ]
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in decoder_outputs(config)
    ]
    return inputs, outputs


def representative_inputs(config: DecoderConfig) -> RepresentativeInputs:
    """A function that gives inputs of a prompt, or of a step over a cache, for sizes of ``decoder_inputs``.

    Token ids are drawn evenly from the vocabulary, the cache from a normal distribution. The size ``total``
    is taken to be ``past + tokens``.
    """

    def inputs(sizes: Mapping[str, int], generator: np.random.Generator) -> dict[str, Array]:
        import numpy as np

        batch, tokens, past = sizes["batch"], sizes["tokens"], sizes["past"]
        arrays: dict[str, Array] = {
            "input_ids": generator.integers(0, config.vocabulary, (batch, tokens), dtype=np.int64)
        }
        if config.rope is None:
            positions = np.arange(past, past + tokens, dtype=np.int64)
            arrays["position_ids"] = np.tile(positions, (batch, 1))
        arrays["attention_mask"] = np.ones((batch, past + tokens), np.int64)
        shape = (batch, config.kv_heads, past, config.head_dim)
        for layer in range(config.layers):
            for part in ("key", "value"):
                values = generator.standard_normal(shape, dtype=np.float32)
                arrays[f"past_key_values.{layer}.{part}"] = values
        return arrays

    return inputs
