"""GPT-2 small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.models.providers import TorchModule
from assay.models.spec import DType, InputSpec, ModelSpec, Weights
from assay.models.text import batch_dim, sequence_dim, tokens

if TYPE_CHECKING:
    import torch

__all__ = ["SPEC"]

_INPUTS = (InputSpec(name="input_ids", dtype=DType.INT64, shape=(batch_dim(), sequence_dim(1024))),)


def _build() -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    from assay.models.zoo.torch_init import randomize
    from assay.models.zoo.wrappers import LanguageModel

    model = GPT2LMHeadModel(GPT2Config(attn_implementation="eager", use_cache=False))
    return LanguageModel(randomize(model))


SPEC = ModelSpec(
    name="gpt2",
    description="GPT-2 small language model: the logits of every position of a sequence.",
    provider=TorchModule(factory=_build, inputs=_INPUTS, outputs=("logits",)),
    inputs=_INPUTS,
    weights=Weights.RANDOM,
    licence="Apache-2.0",
    representative_inputs=tokens(50257),
    needs_torch=True,
    tags=frozenset({"text", "transformer", "language-model"}),
)
