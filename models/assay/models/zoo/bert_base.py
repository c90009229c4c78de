"""BERT-base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.models.providers import TorchModule
from assay.models.spec import DType, InputSpec, ModelSpec, Weights
from assay.models.text import batch_dim, padded_tokens, sequence_dim

if TYPE_CHECKING:
    import torch

__all__ = ["SPEC"]

_SHAPE = (batch_dim(), sequence_dim(512))
_INPUTS = tuple(
    InputSpec(name=name, dtype=DType.INT64, shape=_SHAPE)
    for name in ("input_ids", "attention_mask", "token_type_ids")
)


def _build() -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    from assay.models.zoo.torch_init import randomize
    from assay.models.zoo.wrappers import Encoder

    model = BertModel(BertConfig(attn_implementation="eager"))
    return Encoder(randomize(model))


SPEC = ModelSpec(
    name="bert-base",
    description="BERT-base text encoder: 12 layers of 768, its hidden states and pooled output.",
    provider=TorchModule(factory=_build, inputs=_INPUTS, outputs=("last_hidden_state", "pooler_output")),
    inputs=_INPUTS,
    weights=Weights.RANDOM,
    licence="Apache-2.0",
    representative_inputs=padded_tokens(30522, token_types=True),
    needs_torch=True,
    tags=frozenset({"text", "transformer"}),
)
