"""The vocabulary inside a GGUF file as a tokenizer of the ``tokenizers`` library.

Keys and token types are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer; what
they do to text is what llama.cpp's ``llama-vocab.cpp`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

from assay.errors import MissingDependencyError, TokenizerError
from assay.models.sources.gguf_header import GgufValue
from assay.models.sources.pretokenizers import find_pretokenizer
from assay.models.sources.text import TextSide, check_special_ids, keep_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["gguf_text_side", "gguf_tokenizer"]

_PREFIX = "tokenizer.ggml."
_SPACE = "\u2581"
# The largest vocabularies have 262,144 tokens, of some two million characters, and 600,000 merges. A hostile
# one of eight megabytes can have millions of merges of thousands of characters.
_MOST_TOKENS = 1 << 20
_MOST_CHARACTERS = 1 << 24
_LONGEST = 512
_MOST_MERGES = 1 << 21
# Texts that end a turn by convention. Files name one end; models write others too.
_ENDS = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<eos>"),
        *("<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>"),
    }
)

T = TypeVar("T")


class _Type(IntEnum):
    """What a token is, in ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def gguf_text_side(metadata: Mapping[str, GgufValue], vocabulary: int, name: str) -> TextSide:
    """The text side of a GGUF file with ``metadata`` whose model has ``vocabulary`` tokens.

    Its tokenizer is written to the user's cache; None where the file has no vocabulary. Raises
    TokenizerError, naming the file ``name``, for a vocabulary that is damaged, of an unknown kind, or
    that does not fit the model.
    """
    kind = _get(metadata, "model", str)
    if kind in (None, "none", "no_vocab"):
        return TextSide()
    tokens = _texts(metadata, "tokens")
    if len(tokens) > vocabulary:
        raise TokenizerError(
            f"The vocabulary of {name} does not fit the model: it has {len(tokens)} tokens, "
            f"and the model has {vocabulary}."
        )
    tokenizer = gguf_tokenizer(metadata)
    ends = [number for key in ("eos", "eot", "eom") if (number := _id(metadata, key)) is not None]
    ends += [number for number, token in enumerate(tokens) if token in _ENDS]
    pieces = kind == "llama"
    if pieces and not ends:
        ends = [2]
    bos_id = _id(metadata, "bos")
    add_bos = _get(metadata, "add_bos_token", bool)
    if add_bos is None:
        add_bos = bos_id is not None and (pieces or find_pretokenizer(_pre(metadata)).add_bos)
    template = metadata.get("tokenizer.chat_template")
    side = TextSide(
        tokenizer=keep_tokenizer(tokenizer.to_str()),
        bos_id=bos_id,
        eos_ids=tuple(sorted(set(ends))),
        add_bos=add_bos,
        chat_template=template if isinstance(template, str) else None,
    )
    check_special_ids(side, vocabulary, name)
    return side


def gguf_tokenizer(metadata: Mapping[str, GgufValue]) -> Tokenizer:
    """The tokenizer of a vocabulary of the kind ``gpt2`` (byte-level BPE) or ``llama`` (pieces with scores).

    It adds no token at the beginning or end. Raises TokenizerError.
    """
    try:
        import tokenizers
    except ImportError:
        raise MissingDependencyError("tokenizers", "compile") from None
    kind = _get(metadata, "model", str)
    makers = {"gpt2": _byte_level, "llama": _pieces}
    if kind not in makers:
        raise TokenizerError(
            f"The file's vocabulary is of the kind {str(kind)[:80]!r}, which is not known.",
            hint=f"Known: {', '.join(makers)}.",
        )
    tokens, types = _tokens(metadata)
    try:
        tokenizer = makers[kind](metadata, tokens, types)
        added = [
            tokenizers.AddedToken(token, special=special, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if token and ((special := kind == _Type.CONTROL or token in _ENDS) or kind == _Type.USER_DEFINED)
        ]
        tokenizer.add_tokens(added)
    except TokenizerError:
        raise
    # The library raises Exception itself.
    except Exception as error:
        raise TokenizerError(f"The file's vocabulary is damaged: {str(error)[:200]}.") from None
    return tokenizer


def _byte_level(metadata: Mapping[str, GgufValue], tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    rules = find_pretokenizer(_pre(metadata))
    merges: list[tuple[str, str]] = []
    for merge in _texts(metadata, "merges"):
        # A token may begin with the blank that parts the two.
        cut = merge.find(" ", 1)
        if cut < 0:
            raise TokenizerError(
                f"The file's vocabulary is damaged: {merge[:80]!r} is no merge of two tokens."
            )
        merges.append((merge[:cut], merge[cut + 1 :]))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=rules.whole_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(expression), "isolated") for expression in rules.expressions),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pieces(metadata: Mapping[str, GgufValue], tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    """SentencePiece's BPE: of the neighbours that make a token, those that make the best-scored one merge.

    Every way to make a token of two others becomes a merge; tokens of higher scores come first.
    """
    import numpy as np
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = metadata.get(_PREFIX + "scores")
    if scores is None or isinstance(scores, bool | int | float | str | list) or len(scores) != len(tokens):
        raise TokenizerError("The file's vocabulary is damaged: it does not have one score a token.")
    if not np.isfinite(scores).all():
        raise TokenizerError("The file's vocabulary is damaged: a score of it is not finite.")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = _piece_merges(tokens, types, (-scores.astype(np.float64)).tolist(), vocabulary)
    unknown = _id(metadata, "unknown")
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            [(tokens[left], tokens[right]) for _, left, right in merges],
            unk_token=tokens[unknown if unknown is not None else 0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = _get(metadata, "add_space_prefix", bool)
    prefix = True if prefix is None else prefix
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(_SPACE)] if prefix else []), normalizers.Replace(" ", _SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    return tokenizer


def _piece_merges(
    tokens: Sequence[str], types: Sequence[int], ranks: Sequence[float], vocabulary: Mapping[str, int]
) -> list[tuple[float, int, int]]:
    """Rank and ids of each way to make a token of two others, lowest rank first; raises TokenizerError."""
    if sum(map(len, tokens)) > _MOST_CHARACTERS or max(map(len, tokens)) > _LONGEST:
        raise TokenizerError(f"The file's vocabulary is damaged: its tokens are too long (over {_LONGEST}).")
    merges: list[tuple[float, int, int]] = []
    for token, kind, rank in zip(tokens, types, ranks, strict=True):
        if kind not in (_Type.NORMAL, _Type.USER_DEFINED, _Type.UNUSED):
            continue
        for cut in range(1, len(token)):
            left = vocabulary.get(token[:cut])
            right = None if left is None else vocabulary.get(token[cut:])
            if left is not None and right is not None:
                merges.append((rank, left, right))
        if len(merges) > _MOST_MERGES:
            raise TokenizerError(
                f"The file's vocabulary is damaged: its pieces merge in over {_MOST_MERGES} ways."
            )
    merges.sort()
    return merges


def _tokens(metadata: Mapping[str, GgufValue]) -> tuple[list[str], list[int]]:
    """Tokens and their types by id."""
    tokens = _texts(metadata, "tokens")
    if len(tokens) > _MOST_TOKENS:
        raise TokenizerError(f"The file's vocabulary is damaged: it has {len(tokens)} tokens.")
    if not tokens or len(set(tokens)) != len(tokens):
        raise TokenizerError("The file's vocabulary is damaged: it is empty, or has a token twice.")
    types = metadata.get(_PREFIX + "token_type")
    if types is None:
        return tokens, [_Type.NORMAL] * len(tokens)
    if isinstance(types, bool | int | float | str | list) or len(types) != len(tokens):
        raise TokenizerError("The file's vocabulary is damaged: it does not have one type a token.")
    return tokens, [int(kind) for kind in types]


def _pre(metadata: Mapping[str, GgufValue]) -> str:
    return _get(metadata, "pre", str) or "default"


def _texts(metadata: Mapping[str, GgufValue], key: str) -> list[str]:
    texts = metadata.get(_PREFIX + key)
    if not isinstance(texts, list):
        raise TokenizerError(f"The file's vocabulary is damaged: it has no list {_PREFIX + key!r}.")
    return texts


def _id(metadata: Mapping[str, GgufValue], what: str) -> int | None:
    return _get(metadata, f"{what}_token_id", int)


def _get(metadata: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    """The value of a key of type ``kind``, None where it is missing."""
    value = metadata.get(_PREFIX + key)
    if value is None:
        return None
    if type(value) is not kind:
        raise TokenizerError(
            f"The file's vocabulary is damaged: {_PREFIX + key!r} is not of type {kind.__name__}."
        )
    return value
