"""GPT-2 small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.models.providers import TorchModule
from assay.models.spec import DType, InputSpec, ModelSpec, Weights
from assay.models.text import batch_dim, sequence_dim, tokens

if TYPE_CHECKING:
    import torch

__all__ = ["SPEC"]

_LENGTH = 1024
_INPUTS = (InputSpec(name="input_ids", dtype=DType.INT64, shape=(batch_dim(), sequence_dim(_LENGTH))),)


def _build() -> torch.nn.Module:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

    from assay.models.zoo.torch_init import randomize
    from assay.models.zoo.wrappers import LanguageModel

    # The same function as GPT-2's "gelu_new", exported as one operator instead of eight.
    config = GPT2Config(activation_function="gelu_pytorch_tanh", attn_implementation="eager", use_cache=False)
    model = GPT2LMHeadModel(config)
    # The same layer, but exported as one matrix multiplication instead of one between two reshapes.
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Conv1D):
                inputs, outputs = layer.weight.shape
                setattr(parent, name, torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs))
    return LanguageModel(randomize(model), _LENGTH)


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
