from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from assay.errors import TokenizerError
from assay.runtime.generate.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the generate extra is not installed")

TEXTS = ["Hello world", "naïve café 😀👍🏽 日本語", "tabs\tand\nlines", "", " leading", "é", "👩‍👩‍👧"]


@pytest.fixture(scope="module")
def byte_level() -> bytes:
    """A byte-level BPE with few merges, so that most characters are several tokens."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(["the sea is the sea and the land"] * 4, trainer)
    return library.to_str().encode()


@pytest.fixture(scope="module")
def sentence_piece() -> bytes:
    """Words with a mark for the space before them, which decoding strips from the beginning of a text."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers

    words = [
        "<unk>",
        "<s>",
        "</s>",
        "\u2581the",
        "\u2581sea",
        "s",
        *(f"<0x{byte:02X}>" for byte in range(256)),
    ]
    vocabulary = {word: index for index, word in enumerate(words)}
    library = Library(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return library.to_str().encode()


@pytest.fixture(scope="module")
def info(llama):
    return llama.make_info(vocabulary=320)


@pytest.mark.parametrize("text", TEXTS)
def test_there_and_back(byte_level, info, text):
    tokenizer = Tokenizer(byte_level, info)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("prompt", ["", "the", "日"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_gives_whole_characters(byte_level, info, text, prompt):
    tokenizer = Tokenizer(byte_level, info)
    stream = tokenizer.stream(tokenizer.encode(prompt))
    ids = tokenizer.encode(text)
    pieces = [stream.add(token) for token in ids]
    assert "".join(pieces) + stream.end() == text
    assert not any("\ufffd" in piece for piece in pieces)
    if "😀" in text:
        assert "" in pieces


def test_bytes_that_make_up_no_character(byte_level, info):
    tokenizer = Tokenizer(byte_level, info)
    emoji = tokenizer.encode("😀")
    assert len(emoji) == 4
    stream = tokenizer.stream()
    assert [stream.add(token) for token in emoji[:2]] == ["", ""]
    assert stream.add(tokenizer.encode("a")[0]) == "\ufffda"
    assert [stream.add(token) for token in emoji[:3]] == ["", "", ""]
    assert stream.end() == "\ufffd"
    lonely = tokenizer.stream()
    shown = "".join(lonely.add(emoji[1]) for _ in range(20)) + lonely.end()
    assert shown == "\ufffd" * 20


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_of_random_tokens_is_what_decoding_them_gives(byte_level, info, seed):
    tokenizer = Tokenizer(byte_level, info)
    text = "".join(np.random.default_rng(seed).choice(list("aé日😀 \n"), 80))
    ids = tokenizer.encode(text)
    stream = tokenizer.stream()
    assert "".join(stream.add(token) for token in ids) + stream.end() == text


def test_the_space_before_the_first_word_of_an_answer(sentence_piece, info):
    tokenizer = Tokenizer(sentence_piece, info)
    assert tokenizer.decode([3, 4]) == "the sea"
    answer = tokenizer.stream([3])
    assert [answer.add(token) for token in (4, 5, 4)] == [" sea", "s", " sea"]
    alone = tokenizer.stream()
    assert [alone.add(token) for token in (3, 4)] == ["the", " sea"]


def test_the_token_that_texts_begin_with(byte_level, llama):
    begun = Tokenizer(byte_level, llama.make_info(vocabulary=320, bos_ids=(0,), add_bos=True))
    plain = Tokenizer(byte_level, llama.make_info(vocabulary=320, bos_ids=(0,)))
    assert begun.encode("sea") == [0, *plain.encode("sea")]
    assert begun.encode("sea", begin=False) == plain.encode("sea")
    assert begun.encode("<s>sea") == begun.encode("sea")
    assert begun.encode("") == [0]
    assert plain.encode("") == []


def test_special_tokens(byte_level, info):
    tokenizer = Tokenizer(byte_level, info)
    ids = tokenizer.encode("<|im_start|>a<|im_end|>")
    assert (ids[0], ids[-1]) == (2, 3)
    assert tokenizer.decode(ids) == "a"
    assert tokenizer.decode(ids, special=True) == "<|im_start|>a<|im_end|>"
    assert tokenizer.token(3) == "<|im_end|>"
    assert tokenizer.token(10**6) is None
    stream = tokenizer.stream()
    assert [stream.add(token) for token in ids] == ["", "a", ""]


def test_the_same_tokens(byte_level, sentence_piece, info):
    first, second = Tokenizer(byte_level, info), Tokenizer(sentence_piece, info)
    assert first.same_tokens(Tokenizer(byte_level, info))
    assert not first.same_tokens(second)


def test_a_tokenizer_that_does_not_fit(byte_level, llama):
    size = tokenizers.Tokenizer.from_str(byte_level.decode()).get_vocab_size()
    with pytest.raises(
        TokenizerError, match=f"has the token {size - 1}, and the model a vocabulary of {size - 1}"
    ):
        Tokenizer(byte_level, llama.make_info(vocabulary=size - 1))
    Tokenizer(byte_level, llama.make_info(vocabulary=size))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1, 2]", b"\xff\xfe", b'{"model": 3}', json.dumps({"version": "9"}).encode()]
)
def test_content_that_is_no_tokenizer(content, info):
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer(content, info)


def test_missing_package():
    code = """
import sys
sys.modules["tokenizers"] = None
from assay.errors import MissingDependencyError
from assay.runtime.generate.tokenizer import Tokenizer
try:
    Tokenizer(b"{}", None)
except MissingDependencyError as error:
    assert "pip install '.[generate]'" in str(error), error
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
