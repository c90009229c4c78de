"""A language model compiled to WebAssembly: its text is that of a plain loop over the definition."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from assay.compile.build import build_artifact
from assay.compile.decoders.interface import DecoderOptions
from assay.runtime import load_decoder
from assay.runtime.manifest import Execution


@pytest.mark.slow
def test_tokens_are_those_of_the_definition(tiny: ModuleType, tmp_path: Path) -> None:
    model = tiny.Tiny()
    built = build_artifact(
        tiny.model_spec(model, tmp_path, eos_ids=()),
        target="wasm32-simd",
        cache=tmp_path / "cache",
        output=tmp_path / "artifact",
        decoder=DecoderOptions(max_tokens=24, max_sequences=3, max_rows=12, cache_dtype="float32"),
    )
    assert built.manifest.levels[0].executed is Execution.EMULATED
    ids = [3, 5, 7, 9, 11]
    decoder = load_decoder(tmp_path / "artifact", context=160, sequences=3)
    tokens = decoder.generate(ids, max_new_tokens=20).result().tokens
    for _ in range(20):
        ids.append(int(np.argmax(tiny.logits_of(model, np.array(ids))[-1])))
    assert list(tokens) == ids[5:]
