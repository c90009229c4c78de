from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from assay.errors import ModelError, TokenizerError
from assay.models.sources.hf_text import hf_text_side


def _write(folder: Path, *, begins: bool = False, **files: Any) -> Path:
    """A folder with a tokenizer of seven words, which puts <s> before texts if ``begins``."""
    words = ["<s>", "</s>", "a", "b", "<|im_end|>", "c", "d"]
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="a")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(word) for word in words if word.startswith("<")])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_settings_come_from_every_file(tmp_path: Path) -> None:
    folder = _write(
        tmp_path,
        begins=True,
        tokenizer_config={"chat_template": "T", "eos_token": {"content": "<|im_end|>"}, "bos_token": "<s>"},
        generation_config={"eos_token_id": [1, 5]},
    )
    side = hf_text_side(folder, {"eos_token_id": 6}, 8)
    assert side.tokenizer == folder / "tokenizer.json"
    assert (side.bos_id, side.eos_ids, side.add_bos) == (0, (1, 4, 5, 6), True)
    assert side.chat_template == "T"


def test_texts_begin_as_the_tokenizer_does_it(tmp_path: Path) -> None:
    folder = _write(tmp_path, tokenizer_config={"add_bos_token": True})
    assert hf_text_side(folder, {"bos_token_id": 0}, 7).add_bos is False


def test_a_template_may_be_a_file_of_its_own_or_one_of_several(tmp_path: Path) -> None:
    several = [{"name": "tools", "template": "X"}, {"name": "default", "template": "Y"}, 3]
    folder = _write(tmp_path, tokenizer_config={"chat_template": several})
    assert hf_text_side(folder, {}, 7).chat_template == "Y"
    (folder / "tokenizer_config.json").unlink()
    assert hf_text_side(folder, {}, 7).chat_template is None
    (folder / "chat_template.json").write_text('{"chat_template": "Z"}')
    assert hf_text_side(folder, {}, 7).chat_template == "Z"
    (folder / "chat_template.jinja").write_text("é\n")
    assert hf_text_side(folder, {}, 7).chat_template == "é\n"


def test_a_folder_without_a_tokenizer_has_ids_alone(tmp_path: Path) -> None:
    side = hf_text_side(tmp_path, {"bos_token_id": 1, "eos_token_id": 2}, 7)
    assert (side.tokenizer, side.bos_id, side.eos_ids, side.add_bos) == (None, 1, (2,), False)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    with pytest.raises(TokenizerError, match="its ids go up to 6, and the model has 6 tokens"):
        hf_text_side(folder, {}, 6)
    assert hf_text_side(folder, {}, 100).tokenizer is not None


@pytest.mark.parametrize(
    "config", [{"eos_token_id": 7}, {"bos_token_id": -1}, {"eos_token_id": [0, 1 << 70]}]
)
def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError, match="and the model has 7 tokens"):
        hf_text_side(_write(tmp_path), config, 7)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": {"type": "BPE"}}', b"[" * 10_000])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match="cannot be used"):
        hf_text_side(tmp_path, {}, 7)


def test_other_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        hf_text_side(folder, {}, 7)
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match="cannot be read"):
        hf_text_side(folder, {}, 7)
    (folder / "chat_template.jinja").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(TokenizerError, match="over 1048576 bytes"):
        hf_text_side(folder, {}, 7)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "tokenizer_config.json"])
def test_links_to_other_folders_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("{}")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="a link that leads out of the model's folder"):
        hf_text_side(folder, {}, 7)
