"""Lines that the weight tables of several architectures share."""

from __future__ import annotations

from assay.models.decoders.config import Size
from assay.models.decoders.mapping import Naming, Part, Role, Transform, Weight, same

__all__ = [
    "DOWN",
    "EMBEDDING",
    "FUSED_QKV",
    "GATE_AND_UP",
    "HEAD",
    "OUTPUT",
    "norm",
    "qkv_bias",
    "separate_qkv",
]

_HF = "model.layers.{layer}."
_GGUF = "blk.{layer}."
_MATRICES = (("q", Size.QUERY), ("k", Size.KEY), ("v", Size.KEY))

EMBEDDING = Weight(
    role=Role.EMBEDDING,
    sources=same((Size.VOCABULARY, Size.HIDDEN), hf="model.embed_tokens.weight", gguf="token_embd.weight"),
)
HEAD = Weight(
    role=Role.HEAD,
    sources=same((Size.VOCABULARY, Size.HIDDEN), hf="lm_head.weight", gguf="output.weight"),
    condition=lambda config: not config.tied,
)
OUTPUT = Weight(
    role=Role.OUTPUT,
    sources=same(
        (Size.HIDDEN, Size.QUERY), hf=_HF + "self_attn.o_proj.weight", gguf=_GGUF + "attn_output.weight"
    ),
)
DOWN = Weight(
    role=Role.DOWN,
    sources=same((Size.HIDDEN, Size.FFN), hf=_HF + "mlp.down_proj.weight", gguf=_GGUF + "ffn_down.weight"),
)
GATE_AND_UP = Weight(
    role=Role.UP,
    sources={
        Naming.HF: (
            (
                Part(name=_HF + "mlp.gate_proj.weight", shape=(Size.FFN, Size.HIDDEN)),
                Part(name=_HF + "mlp.up_proj.weight", shape=(Size.FFN, Size.HIDDEN)),
            ),
        ),
        Naming.GGUF: (
            (
                Part(name=_GGUF + "ffn_gate.weight", shape=(Size.FFN, Size.HIDDEN)),
                Part(name=_GGUF + "ffn_up.weight", shape=(Size.FFN, Size.HIDDEN)),
            ),
        ),
    },
)
FUSED_QKV = Weight(
    role=Role.QKV,
    sources=same(
        (Size.QKV, Size.HIDDEN), hf=_HF + "self_attn.qkv_proj.weight", gguf=_GGUF + "attn_qkv.weight"
    ),
)


def _parts(template: str, *trailing: Size, permuted: bool = False) -> tuple[Part, ...]:
    return tuple(
        Part(
            name=template.replace("*", letter),
            shape=(size, *trailing),
            transform=Transform.UNPERMUTE if permuted and letter != "v" else Transform.NONE,
        )
        for letter, size in _MATRICES
    )


def separate_qkv(*, permuted: bool = False) -> Weight:
    """Queries, keys and values apart; ``permuted`` where GGUF has the rows of heads in pairs."""
    return Weight(
        role=Role.QKV,
        sources={
            Naming.HF: (_parts(_HF + "self_attn.*_proj.weight", Size.HIDDEN),),
            Naming.GGUF: (_parts(_GGUF + "attn_*.weight", Size.HIDDEN, permuted=permuted),),
        },
    )


def qkv_bias(*, permuted: bool = False) -> Weight:
    """The biases of queries, keys and values, for architectures that may have them."""
    return Weight(
        role=Role.QKV_BIAS,
        sources={
            Naming.HF: (_parts(_HF + "self_attn.*_proj.bias"),),
            Naming.GGUF: (_parts(_GGUF + "attn_*.bias", permuted=permuted),),
        },
        condition=lambda config: config.qkv_bias,
    )


def norm(role: Role, *, hf: str, gguf: str, add_one: bool = False) -> Weight:
    """The weight of a norm; ``hf`` and ``gguf`` without the parts before the layer's own name."""
    before = (_HF, _GGUF) if role.per_layer else ("model.", "")
    return Weight(
        role=role, sources=same((Size.HIDDEN,), hf=before[0] + hf, gguf=before[1] + gguf, add_one=add_one)
    )
