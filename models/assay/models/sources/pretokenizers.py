"""How byte-level BPE vocabularies of GGUF files split text before they merge, by ``tokenizer.ggml.pre``.

The expressions are those of ``llm_tokenizer_bpe`` in
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp: applied one after the other, each to
what the ones before left in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay.errors import TokenizerError
from assay.registry import Registry

__all__ = ["PRETOKENIZERS", "Pretokenizer", "find_pretokenizer"]


@dataclass(frozen=True, kw_only=True)
class Pretokenizer:
    """Expressions that cut text into words.

    ``whole_words``: a word that is a token is one, whatever the merges say. ``add_bos``: text begins with the
    token of beginnings where the file does not say.
    """

    expressions: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+"
    r"|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?((?=[\p{{L}}])([^a-z]))*((?=[\p{{L}}])([^A-Z]))+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?((?=[\p{{L}}])([^a-z]))+((?=[\p{{L}}])([^A-Z]))*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRETOKENIZERS: Registry[Pretokenizer] = Registry("pre-tokenizer")
PRETOKENIZERS.add(
    "default",
    Pretokenizer(expressions=(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
)
PRETOKENIZERS.add(
    "gpt-2",
    Pretokenizer(expressions=(_GPT2,)),
    aliases=("phi-2", "mpt", "olmo", "jais", "a.x-4.0", "mellum", "modern-bert", "exaone4", "gigachat"),
)
PRETOKENIZERS.add(
    "smollm",
    Pretokenizer(expressions=(r"\p{N}", _GPT2)),
    aliases=("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
)
PRETOKENIZERS.add(
    "llama-bpe",
    Pretokenizer(expressions=(_LLAMA3,), whole_words=True, add_bos=True),
    aliases=("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
)
PRETOKENIZERS.add("dbrx", Pretokenizer(expressions=(_LLAMA3,)), aliases=("smaug-bpe",))
PRETOKENIZERS.add(
    "qwen2",
    Pretokenizer(expressions=(_QWEN2,)),
    aliases=("stablelm2", "deepseek-r1-qwen", "kormo", "hunyuan", "grok-2"),
)
PRETOKENIZERS.add("tekken", Pretokenizer(expressions=(_TEKKEN,), whole_words=True, add_bos=True))
PRETOKENIZERS.add("gpt-4o", Pretokenizer(expressions=(_GPT4O,)), aliases=("llama4",))
PRETOKENIZERS.add("falcon", Pretokenizer(expressions=(r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")))


def find_pretokenizer(name: str) -> Pretokenizer:
    """The entry of a name or alias; raises TokenizerError, which names those that are known."""
    if name not in PRETOKENIZERS:
        raise TokenizerError(
            f"The vocabulary splits text by the rules {name[:80]!r}, which are not known.",
            hint=f"Known: {', '.join(PRETOKENIZERS)}.",
        )
    return PRETOKENIZERS[name]
