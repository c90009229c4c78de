from __future__ import annotations

import importlib.util
from pathlib import Path

from assay.benchmarks.llm import LanguageFiles
from assay.benchmarks.llm.llama_cpp_python import LlamaCpp


def files(gguf: Path | None) -> LanguageFiles:
    return LanguageFiles(name="m", artifact=Path("a"), canonical=None, gguf=gguf, folder=None)


def test_says_what_it_lacks(monkeypatch):
    found = importlib.util.find_spec("msgspec")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert LlamaCpp().unavailable(files(Path("m.gguf"))) == "llama-cpp-python is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert LlamaCpp().unavailable(files(None)) == "the model did not come as a GGUF file"
    assert LlamaCpp().unavailable(files(Path("m.gguf"))) is None


def test_counts_the_file(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"x" * 123)
    assert LlamaCpp().size_bytes(files(tmp_path / "m.gguf")) == 123
    assert LlamaCpp().size_bytes(files(None)) is None
