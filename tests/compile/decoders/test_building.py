"""Builds of decoders: files, manifest, levels, and what verification finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.build import BuildResult, build_artifact
from assay.compile.decoders.interface import DecoderOptions
from assay.compile.reverify import verify_again
from assay.errors import InterfaceError, ModelError, UsageError, VerificationError
from assay.models.spec import ModelSpec
from assay.runtime import load
from assay.runtime.artifact import open_artifact

Build = Callable[..., BuildResult]


@pytest.fixture
def plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention in plain loops, which compile fast."""
    from tests.compile.schedules.paged_loops import paged_loops

    from assay.compile.passes import paged_cache

    monkeypatch.setattr(paged_cache, "paged_attention", lambda problem, context: paged_loops(problem))


@pytest.fixture
def build(needs_avx2: None, tmp_path: Path, plain_loops: None) -> Build:
    def run(spec: ModelSpec, **options: Any) -> BuildResult:
        options = {"target": "x86-64-v3", "output": tmp_path / "out", **options}
        return build_artifact(spec, cache=tmp_path / "cache", **options)

    return run


def test_an_artifact_of_a_decoder(tiny: ModuleType, build: Build, tmp_path: Path) -> None:
    tokenizer = tmp_path / "words.json"
    tokenizer.write_text("{}")
    spec = tiny.model_spec(
        tiny.Tiny(window=40), tmp_path, tokenizer=tokenizer, chat_template="{{ messages }}", eos_ids=(2, 5)
    )
    result = build(spec, decoder=DecoderOptions(cache_dtype="float32", max_tokens=64, max_sequences=2))
    info = result.manifest.decoder
    assert info is not None
    assert (info.architecture, info.layers, info.kv_heads, info.window) == ("llama", 2, 2, 40)
    assert (info.cache_dtype, info.max_tokens, info.max_sequences) == ("float32", 64, 2)
    assert (info.eos_ids, info.tokenizer) == ((2, 5), "tokenizer.json")
    artifact = open_artifact(result.path)
    assert artifact.read("tokenizer.json") == b"{}"
    assert artifact.read("chat_template.jinja") == b"{{ messages }}"
    (level,) = result.manifest.levels
    cases = level.verification.cases
    assert max(case.sizes["past"] for case in cases) > 64, "the window is passed"
    assert {case.sizes["sequences"] for case in cases} == {1, 2}
    for case in cases:
        assert case.row_error is not None
        assert case.row_tolerance is not None
        assert case.row_error <= case.row_tolerance < 1e-2
    # No row of the vocabulary for each token: intermediate results are bounded by the rows that get logits.
    assert level.workspace is not None
    assert level.workspace.maximum_bytes < 64 * 97 * 4 + 64 * 400 * 4 + 100_000
    assert set(verify_again(result.path, spec, cache=tmp_path / "cache")) == {"x86-64-v3"}
    _refuses_bad_calls(result.path)


def _refuses_bad_calls(path: Path) -> None:
    model = load(path)
    cache = np.zeros((2, 2, 2, 2, 512), np.float32)
    call: dict[str, Any] = {
        "input_ids": np.array([[1]]),
        "position_ids": np.array([[0]]),
        "sequence_offsets": np.array([0, 1], np.int32),
        "past_lengths": np.array([0], np.int32),
        "page_table": np.array([[1]], np.int32),
        "logits_rows": np.array([0]),
    }
    for name, wrong, message in (
        ("cache", cache[..., :256], "size 256, expected 512"),
        ("cache", cache.astype(np.float16), "dtype float16, expected float32"),
        ("cache", cache[:, :1], "size 1, expected 2"),
    ):
        with pytest.raises(InterfaceError, match=message):
            model.run({**call, name: wrong})
    from assay.runtime.memory import empty_aligned

    own = empty_aligned(cache.shape, cache.dtype)
    own[...] = 0
    assert model.run({**call, "cache": own})["logits"].shape == (1, 97)
    assert own[1].any()
    with pytest.raises(InterfaceError, match="32 tokens in the cache and 1 new ones"):
        model.run({**call, "cache": own, "past_lengths": np.array([32], np.int32)})


def test_wrong_code_is_no_artifact(
    tiny: ModuleType, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window that is one token too long is noticed."""
    from assay.compile.schedules.paged_problem import Place

    real = Place.numbers
    monkeypatch.setattr(Place, "numbers", lambda self: (real(self)[0], real(self)[1] + 1))
    with pytest.raises(VerificationError, match="differs from ONNX Runtime's"):
        build(tiny.model_spec(tiny.Tiny(window=20, layers=1), tmp_path))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_built(tiny: ModuleType, build: Build, tmp_path: Path) -> None:
    model = tiny.Tiny(layers=1)
    with pytest.raises(UsageError, match="pgo is not for models that generate text"):
        build(tiny.model_spec(model, tmp_path), profile="pgo")
    with pytest.raises(ModelError, match="1 GroupQueryAttention operators for 3 layers"):
        build(tiny.model_spec(model, tmp_path, layers=3))
    with pytest.raises(ModelError, match="4 heads and 2 of keys and values"):
        build(tiny.model_spec(model, tmp_path, heads=8))


@pytest.mark.slow
def test_levels_share_the_text_files(
    tiny: ModuleType, needs_avx2: None, tmp_path: Path, plain_loops: None
) -> None:
    spec = tiny.model_spec(tiny.Tiny(layers=1), tmp_path, chat_template="hello")
    result = build_artifact(
        spec,
        target="x86-64-v2,x86-64-v3",
        cache=tmp_path / "cache",
        output=tmp_path / "out",
        decoder=DecoderOptions(cache_dtype="int8"),
    )
    assert len(result.manifest.levels) == 2
    assert open_artifact(result.path).read("chat_template.jinja") == b"hello"
    assert [item.name for item in result.manifest.inputs][-1] == "cache_scales"
