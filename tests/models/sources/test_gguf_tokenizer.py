from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from assay.errors import TokenizerError
from assay.models.sources import gguf_tokenizer as gguf_tokenizer_module
from assay.models.sources import text as text_module
from assay.models.sources.gguf_tokenizer import gguf_text_side, gguf_tokenizer
from assay.models.sources.pretokenizers import PRETOKENIZERS
from assay.models.sources.text import load_tokenizer

SPACE = "\u2581"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(text_module, "_cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def _gguf(**values: Any) -> dict[str, Any]:
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


def byte_level(merges: list[str], special: list[str] | None = None, **values: Any) -> dict[str, Any]:
    """A byte-level vocabulary: 256 bytes, what the merges make, and special tokens."""
    special = special or []
    tokens = sorted(ByteLevel.alphabet()) + ["".join(merge.split(" ", 1)) for merge in merges] + special
    types = np.array([1] * (len(tokens) - len(special)) + [3] * len(special), np.int32)
    return _gguf(model="gpt2", tokens=tokens, token_type=types, merges=merges, **values)


def pieces(
    scored: dict[str, float], special: tuple[str, ...] = ("<unk>", "<s>", "</s>"), **values: Any
) -> dict[str, Any]:
    """A vocabulary of pieces with scores, behind special tokens and the 256 bytes."""
    tokens = [*special, *(f"<0x{number:02X}>" for number in range(256)), *scored]
    scores = np.array([0.0] * (len(special) + 256) + list(scored.values()), np.float32)
    types = np.array([2, 3, 3][: len(special)] + [6] * 256 + [1] * len(scored), np.int32)
    return _gguf(model="llama", tokens=tokens, scores=scores, token_type=types, **values)


def test_merges_are_done_in_their_order() -> None:
    tokenizer = gguf_tokenizer(byte_level(["l l", "h e", "ll o", "he llo"]))
    assert tokenizer.encode("hello hell").tokens == ["hello", "Ġ", "he", "ll"]
    assert tokenizer.decode(tokenizer.encode("hello\n wörld 🙂").ids) == "hello\n wörld 🙂"


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["12345", "Ġ", "x", "!!$"]),
        ("smollm", ["1", "2", "3", "4", "5", "Ġ", "x", "!!$"]),
        ("default", ["123", "45", "Ġ", "x", "!!$"]),
        ("llama-bpe", ["123", "45", "Ġ", "x", "!!$"]),
        ("qwen2", ["1", "2", "3", "4", "5", "Ġ", "x", "!!$"]),
        (None, ["123", "45", "Ġ", "x", "!!$"]),
    ],
)
def test_text_is_split_as_the_file_says(pre: str | None, expected: list[str]) -> None:
    merges = ["1 2", "12 3", "4 5", "123 45", "! !", "!! $"]
    metadata = byte_level(merges, **({} if pre is None else {"pre": pre}))
    assert gguf_tokenizer(metadata).encode("12345 x!!$").tokens == expected


def test_every_rule_makes_a_tokenizer_that_gives_text_back() -> None:
    sample = "It's 1,234.5 émigré's  CamelCase\n\n\t日本語 🙂 'LL end  "
    for pre in PRETOKENIZERS:
        tokenizer = gguf_tokenizer(byte_level(["t h", "th e"], pre=pre))
        assert tokenizer.decode(tokenizer.encode(sample).ids) == sample


def test_whole_words_are_tokens_whatever_the_merges_say() -> None:
    merges = ["a b", "b c"]
    metadata = byte_level(merges, pre="llama-bpe")
    metadata["tokenizer.ggml.tokens"].append("abc")
    metadata["tokenizer.ggml.token_type"] = np.ones(259, np.int32)
    assert gguf_tokenizer(metadata).encode("abc").tokens == ["abc"]
    metadata["tokenizer.ggml.pre"] = "gpt-2"
    assert gguf_tokenizer(metadata).encode("abc").tokens == ["ab", "c"]


def test_special_tokens_are_found_in_text_and_left_out_of_it() -> None:
    tokenizer = gguf_tokenizer(byte_level([], ["<|x|>", "<|im_end|>"]))
    encoded = tokenizer.encode("a<|x|>b")
    assert encoded.tokens == ["a", "<|x|>", "b"]
    assert tokenizer.decode(encoded.ids) == "ab"
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == "a<|x|>b"


def _reference_pieces(text: str, metadata: dict[str, Any], prefix: bool) -> list[str]:
    """SentencePiece's BPE as its paper has it: merge the best-scored neighbours, the leftmost of equals."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    scores = dict(zip(tokens, metadata["tokenizer.ggml.scores"].tolist(), strict=True))
    symbols = list(((" " if prefix and text else "") + text).replace(" ", SPACE))
    while True:
        pairs = [
            (scores[one + two], -place)
            for place, (one, two) in enumerate(itertools.pairwise(symbols))
            if one + two in scores
        ]
        if not pairs:
            break
        place = -max(pairs)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    found: list[str] = []
    for symbol in symbols:
        found += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return found


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_merge_by_their_scores(prefix: bool) -> None:
    generator = random.Random(0)
    alphabet = [SPACE, *"abcdé"]
    words = list(alphabet)
    while len(words) < 120:
        word = generator.choice(words) + generator.choice(words)
        if word not in words and len(word) < 9:
            words.append(word)
    order = list(range(len(words)))
    generator.shuffle(order)
    scored = {word: -float(rank) for word, rank in zip(words, order, strict=True)}
    metadata = pieces(scored, add_space_prefix=prefix)
    tokenizer = gguf_tokenizer(metadata)
    for _ in range(400):
        text = "".join(generator.choice("aabbccddé  🙂x\n") for _ in range(generator.randint(0, 24)))
        encoded = tokenizer.encode(text)
        assert encoded.tokens == _reference_pieces(text, metadata, prefix), text
        assert tokenizer.decode(encoded.ids) == text


def test_the_text_side_has_ids_and_template(cache: Path) -> None:
    metadata = byte_level(
        ["a b"], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], bos_token_id=258, eos_token_id=259
    )
    metadata["tokenizer.chat_template"] = "{{ messages }}"
    side = gguf_text_side(metadata, 260, "'x'")
    assert (side.bos_id, side.eos_ids, side.add_bos) == (258, (257, 259), False)
    assert side.chat_template == "{{ messages }}"
    assert side.tokenizer is not None
    assert side.tokenizer.is_relative_to(cache)
    assert load_tokenizer(side.tokenizer).encode("ab").ids == [256]
    again = gguf_text_side(metadata, 260, "'x'")
    assert again == side
    assert len(list(cache.rglob("*.json"))) == 1


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (pieces({"a": 0.0}, bos_token_id=1, eos_token_id=2), True),
        (pieces({"a": 0.0}, bos_token_id=1, eos_token_id=2, add_bos_token=False), False),
        (byte_level([], ["<b>"], pre="llama-bpe", bos_token_id=256), True),
        (byte_level([], ["<b>"], pre="qwen2", bos_token_id=256), False),
        (byte_level([], ["<b>"], pre="qwen2", bos_token_id=256, add_bos_token=True), True),
    ],
)
def test_texts_begin_as_the_file_or_its_kind_says(metadata: dict[str, Any], expected: bool) -> None:
    assert gguf_text_side(metadata, 400, "'x'").add_bos is expected


@pytest.mark.parametrize("metadata", [{}, _gguf(model="none"), _gguf(model="no_vocab")])
def test_a_file_may_have_no_vocabulary(metadata: dict[str, Any]) -> None:
    assert gguf_text_side(metadata, 10, "'x'").tokenizer is None


@pytest.mark.parametrize(
    ("metadata", "vocabulary", "message"),
    [
        (byte_level(["a b"]), 256, "does not fit the model: it has 257 tokens, and the model has 256"),
        (byte_level([], eos_token_id=300), 256, "the id 300, and the model has 256"),
        (byte_level([], bos_token_id=300), 256, "the id 300"),
        (byte_level([], add_bos_token=True), 256, "begin with a token that it does not name"),
        (byte_level([], pre="klingon"), 256, "the rules 'klingon', which are not known"),
        (_gguf(model="bert", tokens=["a"]), 9, "of the kind 'bert', which is not known"),
        (_gguf(model="gpt2"), 9, "no list 'tokenizer.ggml.tokens'"),
        (_gguf(model="gpt2", tokens=["a", "a"], merges=[]), 9, "a token twice"),
        (_gguf(model="gpt2", tokens=[], merges=[]), 9, "it is empty"),
        (_gguf(model="gpt2", tokens=["a"]), 9, "no list 'tokenizer.ggml.merges'"),
        (_gguf(model="gpt2", tokens=["a"], merges=["ab"]), 9, "'ab' is no merge of two tokens"),
        (_gguf(model="gpt2", tokens=["a"], merges=["a b"]), 9, "vocabulary is damaged"),
        (_gguf(model="gpt2", tokens=["a"], merges=[], token_type=np.ones(2)), 9, "one type a token"),
        (_gguf(model="gpt2", tokens=["a"], merges=[], token_type="x"), 9, "one type a token"),
        (_gguf(model="llama", tokens=["a"]), 9, "one score a token"),
        (_gguf(model="llama", tokens=["a"], scores=np.ones(2)), 9, "one score a token"),
        (_gguf(model="llama", tokens=["a"], scores="x"), 9, "one score a token"),
        (_gguf(model="llama", tokens=["a"], scores=np.array([np.nan])), 9, "not finite"),
        (
            _gguf(model="llama", tokens=["a"], scores=np.ones(1), unknown_token_id=5),
            9,
            "vocabulary is damaged",
        ),
        (pieces({"a" * 513: 0.0}), 400, "its tokens are too long"),
        (_gguf(model=7), 9, "not of type str"),
        (byte_level([], eos_token_id="x"), 256, "not of type int"),
    ],
)
def test_a_damaged_vocabulary_is_refused(
    cache: Path, metadata: dict[str, Any], vocabulary: int, message: str
) -> None:
    with pytest.raises(TokenizerError, match=message) as raised:
        gguf_text_side(metadata, vocabulary, "'x'")
    assert "\n" not in raised.value.message


def test_pieces_that_merge_in_millions_of_ways_are_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_tokenizer_module, "_MOST_MERGES", 1000)
    with pytest.raises(TokenizerError, match="merge in over 1000 ways"):
        gguf_tokenizer(pieces({"a" * (length + 1): float(-length) for length in range(60)}))
    gguf_tokenizer(pieces({"a" * (length + 1): float(-length) for length in range(40)}))
