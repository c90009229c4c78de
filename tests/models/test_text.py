from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from assay.errors import UsageError
from assay.models.registry import find_model
from assay.models.text import decode_text


class _Words:
    """A tokenizer file of three words."""

    def __init__(self, folder: Path) -> None:
        words = {"[UNK]": 0, "red": 1, "green": 2, "blue": 3}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self._path = folder / "tokenizer.json"
        tokenizer.save(str(self._path))

    def path(self) -> Path:
        return self._path


def test_each_line_is_a_sequence_padded_to_the_longest(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("red green blue\n\n  \nblue\n")
    arrays = decode_text(_Words(tmp_path), maximum=512)(tmp_path / "text.txt")
    np.testing.assert_array_equal(arrays["input_ids"], [[1, 2, 3], [3, 0, 0]])
    np.testing.assert_array_equal(arrays["attention_mask"], [[1, 1, 1], [1, 0, 0]])
    assert arrays["input_ids"].dtype == np.int64


def test_long_lines_are_cut(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("red " * 50)
    assert decode_text(_Words(tmp_path), maximum=8)(tmp_path / "text.txt")["input_ids"].shape == (1, 8)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "no text"), (b" \n", "no text"), (b"\xff\xfe\x00", "as text")]
)
def test_what_is_no_text_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        decode_text(_Words(tmp_path), maximum=8)(tmp_path / "text.txt")


@pytest.mark.slow
def test_minilm_comes_with_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Hello world!")
    decode = find_model("minilm").decode_file
    assert decode is not None
    np.testing.assert_array_equal(decode(tmp_path / "text.txt")["input_ids"], [[101, 7592, 2088, 999, 102]])
