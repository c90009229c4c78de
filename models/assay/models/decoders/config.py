"""The sizes and variations of a decoder model, whatever its source."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from assay.errors import ModelError
from assay.models.decoders.fields import MOST_ELEMENTS, MOST_LAYERS
from assay.models.decoders.rope import Rope
from assay.models.decoders.spec import DecoderSpec

__all__ = ["Activation", "DecoderConfig", "Norm", "Size"]

# Rotary tables are as long as the context, half a gigabyte at this length.
_MOST = {"layers": MOST_LAYERS, "context_length": 1 << 20}


class Norm(StrEnum):
    """Which normalization the model has throughout."""

    LAYER = "layer"
    RMS = "rms"


class Activation(StrEnum):
    """The nonlinearity of the feed-forward part."""

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"


class Size(StrEnum):
    """A dimension of a weight, by what it is in the model."""

    VOCABULARY = "vocabulary"
    CONTEXT = "context"
    HIDDEN = "hidden"
    QUERY = "heads*head_dim"
    KEY = "kv_heads*head_dim"
    QKV = "(heads+2*kv_heads)*head_dim"
    FFN = "ffn"
    GATE_UP = "2*ffn"
    ROTARY = "rotary_dim/2"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything about a decoder that is not a weight. Sizes are in elements, positions in tokens.

    The defaults describe a block of Llama's kind: RMS norm before attention and before a gated feed-forward
    part, no biases, no caps. ``window`` tokens, itself included, are what a token attends to in the layers
    ``window_layers`` (None: in all layers, where ``window`` is set). ``rope`` None means learned positions.
    ``attention_scale`` None is 1/sqrt(head_dim). ``parallel`` adds attention and feed-forward part,
    both of one norm, to the residual. ``post_norms`` normalizes what either adds.

    Raises ModelError for sizes that no decoder can have.
    """

    architecture: str
    vocabulary: int
    context_length: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    norm: Norm = Norm.RMS
    norm_epsilon: float
    rope: Rope | None = None
    window: int | None = None
    window_layers: frozenset[int] | None = None
    activation: Activation = Activation.SILU
    gated: bool = True
    parallel: bool = False
    post_norms: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    head_bias: bool = False
    tied: bool = False
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "vocabulary",
            "context_length",
            "hidden",
            "layers",
            "heads",
            "kv_heads",
            "head_dim",
            "ffn",
        ):
            most = _MOST.get(name, MOST_ELEMENTS)
            if not 1 <= getattr(self, name) <= most:
                raise ModelError(
                    f"The model's configuration says {name} = {getattr(self, name)}, which cannot be."
                )
        if self.heads % self.kv_heads:
            raise ModelError(
                f"The model's configuration has {self.heads} heads and {self.kv_heads} key-value heads; "
                "the first must be a multiple of the second."
            )
        if self.window is not None and self.window < 1:
            raise ModelError(f"The model's configuration has a window of {self.window} tokens.")
        if self.rope is not None and (self.rope.dim % 2 or not 0 < self.rope.dim <= self.head_dim):
            raise ModelError(
                f"The model's configuration rotates {self.rope.dim} of {self.head_dim} elements of a head."
            )

    def size(self, size: Size) -> int:
        """The number of elements of a dimension."""
        match size:
            case Size.VOCABULARY:
                return self.vocabulary
            case Size.CONTEXT:
                return self.context_length
            case Size.HIDDEN:
                return self.hidden
            case Size.QUERY:
                return self.heads * self.head_dim
            case Size.KEY:
                return self.kv_heads * self.head_dim
            case Size.QKV:
                return (self.heads + 2 * self.kv_heads) * self.head_dim
            case Size.FFN:
                return self.ffn
            case Size.GATE_UP:
                return 2 * self.ffn
            case Size.ROTARY:
                return self.rope.dim // 2 if self.rope else 0

    def window_of(self, layer: int) -> int | None:
        """How many tokens a token attends to in ``layer``; None for all."""
        return self.window if self.window_layers is None or layer in self.window_layers else None

    def spec(
        self,
        *,
        bos_id: int | None = None,
        eos_ids: tuple[int, ...] = (),
        add_bos: bool = False,
        tokenizer: Path | None = None,
        chat_template: str | None = None,
    ) -> DecoderSpec:
        """The specification of this model, with the text side that the source has.

        Its ``window`` is set only where every layer has one: only then may a cache drop older tokens.
        """
        everywhere = all(self.window_of(layer) is not None for layer in range(self.layers))
        return DecoderSpec(
            architecture=self.architecture,
            vocabulary=self.vocabulary,
            context_length=self.context_length,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            window=self.window if everywhere else None,
            bos_id=bos_id,
            eos_ids=eos_ids,
            add_bos=add_bos,
            tokenizer=tokenizer,
            chat_template=chat_template,
        )
