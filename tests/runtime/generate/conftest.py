from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def llama():
    """The module ``numpy_llama`` beside this file."""
    name = "assay_tests_numpy_llama"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("numpy_llama.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@dataclass(frozen=True, kw_only=True)
class Letters:
    """A tokenizer of bytes, with an end token."""

    content: bytes
    size: int
    end: int


@pytest.fixture(scope="session")
def letters() -> Letters:
    pytest.importorskip("tokenizers", reason="the generate extra is not installed")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["</s>"])
    end = library.token_to_id("</s>")
    return Letters(content=library.to_str().encode(), size=library.get_vocab_size(), end=end)
