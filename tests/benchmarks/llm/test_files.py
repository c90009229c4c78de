from __future__ import annotations

from pathlib import Path

import pytest

from assay.benchmarks.llm.files import language_files
from assay.models.providers import GgufFile, HuggingFaceFolder, OnnxFile
from assay.models.spec import ModelSpec, Weights


@pytest.mark.parametrize(
    ("provider", "gguf", "folder"),
    [
        (GgufFile(source=Path("m.gguf")), Path("m.gguf"), None),
        (HuggingFaceFolder(path=Path("m")), None, Path("m")),
        (OnnxFile(path=Path("m.onnx")), None, None),
    ],
)
def test_engines_get_what_the_model_came_from(provider, gguf, folder):
    spec = ModelSpec(
        name="m", description="A test.", provider=provider, inputs=(), weights=Weights.TRAINED, licence="MIT"
    )
    found = language_files(spec, Path("a"), Path("c"))
    assert (found.name, found.artifact, found.canonical) == ("m", Path("a"), Path("c"))
    assert (found.gguf, found.folder) == (gguf, folder)
