"""The entry of a compiled decoder: its inputs and output, and what the manifest says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from assay.models.decoders.spec import DecoderSpec
from assay.models.export.interface import OutputSpec
from assay.models.spec import DType, InputSpec, SymbolicDim
from assay.runtime.manifest import DecoderInfo

__all__ = [
    "CHAT_TEMPLATE",
    "PAGE_TOKENS",
    "TOKENIZER",
    "CacheDType",
    "DecoderOptions",
    "decoder_info",
    "options_of",
    "paged_dims",
    "paged_inputs",
    "paged_outputs",
]

PAGE_TOKENS = 32
"""Tokens of a page of the cache."""

CacheDType: TypeAlias = Literal["float16", "float32", "int8"]

TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"

# A page of one head of one layer has 4 KiB and more: memory ends long before this.
_MOST_PAGES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """What a build of a decoder decides: the cache's dtype, and the limits of one call.

    ``max_tokens``: rows of all sequences together. ``max_rows``: rows that get logits, at most so many.
    """

    cache_dtype: CacheDType = "float16"
    max_tokens: int = 512
    max_sequences: int = 16
    max_rows: int = 64

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_sequences", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def paged_inputs(decoder: DecoderSpec, options: DecoderOptions) -> tuple[InputSpec, ...]:
    """The inputs of the entry, in order.

    ``sequence_offsets`` has one element more than there are sequences, a dimension of its own.
    """
    tokens = SymbolicDim(name="tokens", default=min(128, options.max_tokens), maximum=options.max_tokens)
    sequences = SymbolicDim(name="sequences", default=1, maximum=options.max_sequences)
    offsets = SymbolicDim(name="offsets", default=2, minimum=2, maximum=options.max_sequences + 1)
    rows = SymbolicDim(name="rows", default=1, maximum=min(options.max_rows, options.max_tokens))
    widest = -(-decoder.context_length // PAGE_TOKENS)
    width = SymbolicDim(name="table_width", default=min(8, widest), maximum=widest)
    pages = SymbolicDim(name="pages", default=8, maximum=_MOST_PAGES)
    planes = (pages, decoder.layers, 2, decoder.kv_heads)
    inputs = [
        InputSpec(name="input_ids", dtype=DType.INT64, shape=(1, tokens)),
        InputSpec(name="position_ids", dtype=DType.INT64, shape=(1, tokens)),
        InputSpec(name="sequence_offsets", dtype=DType.INT32, shape=(offsets,)),
        InputSpec(name="past_lengths", dtype=DType.INT32, shape=(sequences,)),
        InputSpec(name="page_table", dtype=DType.INT32, shape=(sequences, width)),
        InputSpec(name="logits_rows", dtype=DType.INT64, shape=(rows,)),
        InputSpec(
            name="cache", dtype=DType(options.cache_dtype), shape=(*planes, PAGE_TOKENS * decoder.head_dim)
        ),
    ]
    if options.cache_dtype == "int8":
        inputs.append(InputSpec(name="cache_scales", dtype=DType.FLOAT32, shape=(*planes, PAGE_TOKENS)))
    return tuple(inputs)


def paged_dims(decoder: DecoderSpec, options: DecoderOptions) -> dict[str, SymbolicDim]:
    """The symbolic dimensions of the entry by name."""
    shapes = (item.shape for item in paged_inputs(decoder, options))
    return {dim.name: dim for shape in shapes for dim in shape if isinstance(dim, SymbolicDim)}


def paged_outputs(decoder: DecoderSpec) -> tuple[OutputSpec, ...]:
    """The output of the entry: logits of the rows that were asked for, in their order."""
    return (OutputSpec(name="logits", dtype=DType.FLOAT32, shape=("rows", decoder.vocabulary)),)


def decoder_info(decoder: DecoderSpec, options: DecoderOptions) -> DecoderInfo:
    """The manifest's description of the decoder."""
    return DecoderInfo(
        architecture=decoder.architecture,
        vocabulary=decoder.vocabulary,
        context_length=decoder.context_length,
        layers=decoder.layers,
        heads=decoder.heads,
        kv_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        page_tokens=PAGE_TOKENS,
        cache_dtype=options.cache_dtype,
        window=decoder.window,
        max_tokens=options.max_tokens,
        max_sequences=options.max_sequences,
        max_rows=min(options.max_rows, options.max_tokens),
        bos_ids=() if decoder.bos_id is None else (decoder.bos_id,),
        eos_ids=decoder.eos_ids,
        add_bos=decoder.add_bos,
        tokenizer=None if decoder.tokenizer is None else TOKENIZER,
        chat_template=None if decoder.chat_template is None else CHAT_TEMPLATE,
    )


def options_of(info: DecoderInfo) -> DecoderOptions:
    """The options that a decoder was built with, from its description."""
    return DecoderOptions(
        cache_dtype=info.cache_dtype,
        max_tokens=info.max_tokens,
        max_sequences=info.max_sequences,
        max_rows=info.max_rows,
    )
