from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.compile.decoders.tiny import Tiny

from assay.benchmarks.llm import LanguageFiles
from assay.benchmarks.llm.onnx_runtime import OnnxRuntimeDecoder


@pytest.mark.parametrize("rotary", [True, False])
def test_steps_give_what_one_prompt_gives(tmp_path, rotary):
    tiny = Tiny(rotary=rotary)
    onnx.save(tiny.model(), tmp_path / "model.onnx")
    files = LanguageFiles(
        name="m", artifact=Path("a"), canonical=tmp_path / "model.onnx", gguf=None, folder=None
    )
    session = OnnxRuntimeDecoder().load(files, 1, 64, 2)
    tokens = np.random.default_rng(0).integers(0, tiny.vocabulary, (2, 12)).tolist()
    expected = session.advance(tokens)
    assert expected.shape == (2, tiny.vocabulary)
    session.reset()
    session.advance([own[:9] for own in tokens])
    for index in range(9, 12):
        found = session.advance([own[index : index + 1] for own in tokens])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
