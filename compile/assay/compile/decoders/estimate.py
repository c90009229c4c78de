"""How much memory a decoder would take that is not built, computed from the shapes of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from assay.compile.decoders.interface import TOKENIZER, DecoderOptions, decoder_info
from assay.runtime.generate.cache import page_bytes
from assay.runtime.generate.estimate import MemoryEstimate, logits_bytes, runtime_bytes
from assay.runtime.generate.paged_decoder import pages_needed

if TYPE_CHECKING:
    from assay.compile.schemes import Scheme
    from assay.models.decoders.config import DecoderConfig

__all__ = ["estimate_unbuilt", "weights_bytes"]

_FLOAT_BYTES = 4


def estimate_unbuilt(
    config: DecoderConfig, scheme: Scheme, options: DecoderOptions, *, context: int, sequences: int
) -> MemoryEstimate:
    """The estimate for a build of ``config`` with ``scheme`` and ``options``.

    The workspace of a build is planned by the compiler; here it is the values of one layer for the most rows
    of one call.
    """
    info = decoder_info(config.spec(), options)
    heads = (config.heads + 2 * config.kv_heads) * config.head_dim
    row = 2 * config.hidden + heads + 2 * config.ffn
    return MemoryEstimate(
        weights=weights_bytes(config, scheme),
        cache=pages_needed(info, context, sequences) * page_bytes(info),
        workspace=_FLOAT_BYTES * info.max_tokens * row + logits_bytes(info, sequences),
        runtime=runtime_bytes(msgspec.structs.replace(info, tokenizer=TOKENIZER), {}),
    )


def weights_bytes(config: DecoderConfig, scheme: Scheme) -> int:
    """Bytes of all weights, scales and zero points included; float32 for vectors and what does not fit."""
    import onnx

    from assay.compile.quantize.sites import Kind, Reader, Weight
    from assay.models.decoders.mapping import Role
    from assay.models.decoders.shapes import weight_shapes

    total = 0
    for weight in weight_shapes(config):
        elements = 1
        for size in weight.shape:
            elements *= size
        kind = Kind.TABLE if weight.role in (Role.EMBEDDING, Role.POSITION) else Kind.PRODUCT
        reader = Reader(node=0, kind=kind, position=1, transposed=False)
        site = Weight(name=weight.role, shape=weight.shape, readers=(reader,), tensor=onnx.TensorProto())
        if len(weight.shape) != 2:
            total += _FLOAT_BYTES * elements
            continue
        chosen = scheme.for_weight(site)
        fits = chosen.misfit(site) is None
        total += chosen.stored_bytes(weight.shape) if fits else _FLOAT_BYTES * elements
    return total
