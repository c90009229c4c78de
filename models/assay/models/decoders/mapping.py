"""The words in which an architecture's table of weights is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from assay.models.decoders.config import DecoderConfig, Size
from assay.models.decoders.fields import Fields

__all__ = ["Architecture", "Naming", "Part", "Role", "Transform", "Weight", "same"]


class Naming(StrEnum):
    """Whose names a source's weights have."""

    HF = "hf"
    GGUF = "gguf"


class Transform(StrEnum):
    """What has to be done to a stored tensor.

    - ``transpose``: stored [in, out] (GPT-2's Conv1D).
    - ``unpermute``: rows of each head in pairs (0, dim/2, 1, dim/2 + 1 ...), as the conversion to GGUF leaves
      the queries and keys of Llama; ours are in halves.
    - ``add_one``: the norm multiplies by 1 + weight (Gemma; its conversion to GGUF has added it).
    """

    NONE = "none"
    TRANSPOSE = "transpose"
    UNPERMUTE = "unpermute"
    ADD_ONE = "add_one"


class Role(StrEnum):
    """What a weight does in the canonical decoder; ``{layer}`` is a number. Matrices are [out, in]."""

    EMBEDDING = "embedding.weight"
    POSITION = "position.weight"
    ROPE_FACTORS = "rope_factors"
    INPUT_NORM = "layers.{layer}.input_norm.weight"
    INPUT_NORM_BIAS = "layers.{layer}.input_norm.bias"
    QKV = "layers.{layer}.qkv.weight"
    QKV_BIAS = "layers.{layer}.qkv.bias"
    OUTPUT = "layers.{layer}.output.weight"
    OUTPUT_BIAS = "layers.{layer}.output.bias"
    POST_ATTENTION_NORM = "layers.{layer}.post_attention_norm.weight"
    FFN_NORM = "layers.{layer}.ffn_norm.weight"
    FFN_NORM_BIAS = "layers.{layer}.ffn_norm.bias"
    UP = "layers.{layer}.up.weight"  # gate and up, one after the other, where the feed-forward part is gated
    UP_BIAS = "layers.{layer}.up.bias"
    DOWN = "layers.{layer}.down.weight"
    DOWN_BIAS = "layers.{layer}.down.bias"
    POST_FFN_NORM = "layers.{layer}.post_ffn_norm.weight"
    NORM = "norm.weight"
    NORM_BIAS = "norm.bias"
    HEAD = "head.weight"
    HEAD_BIAS = "head.bias"

    @property
    def per_layer(self) -> bool:
        """Whether every layer has one."""
        return "{layer}" in self.value


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stored tensor: its name, with ``{layer}`` in it, the shape it is stored in, and its transform."""

    name: str
    shape: tuple[Size, ...]
    transform: Transform = Transform.NONE


Alternatives: TypeAlias = tuple[tuple[Part, ...], ...]
Condition: TypeAlias = Callable[[DecoderConfig], bool]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One line of an architecture's table: which stored tensors, by whose names, are a role.

    ``sources`` has for each naming one or more alternatives; of them, the first whose tensors are all there
    counts. The tensors of an alternative are rows, one after the other, of the role's matrix or vector.
    The model has this weight where ``condition`` holds; an ``optional`` one may be missing even then.
    """

    role: Role
    sources: Mapping[Naming, Alternatives]
    condition: Condition = lambda config: True
    optional: bool = False


def same(
    shape: tuple[Size, ...], *, hf: str, gguf: str, add_one: bool = False
) -> Mapping[Naming, Alternatives]:
    """Sources of a weight that both namings store alike; ``add_one`` where GGUF has 1 added already."""
    transform = Transform.ADD_ONE if add_one else Transform.NONE
    return {
        Naming.HF: ((Part(name=hf, shape=shape, transform=transform),),),
        Naming.GGUF: ((Part(name=gguf, shape=shape),),),
    }


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A family of decoders: how its configuration is read, and its table of weights.

    ``model_type`` is Hugging Face's, ``gguf`` GGUF's ``general.architecture``; None where the family has none
    of its own there. ``prefix`` begins the Hugging Face names of everything but the head; files of the bare
    model lack it. ``ignored`` are patterns (fnmatch) of stored tensors that no computation needs.
    """

    name: str
    model_type: str
    gguf: str | None
    read_hf: Callable[[Fields], DecoderConfig]
    read_gguf: Callable[[Fields, frozenset[str]], DecoderConfig]
    weights: tuple[Weight, ...]
    prefix: str
    ignored: tuple[str, ...] = ()
