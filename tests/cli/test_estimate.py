from __future__ import annotations

import msgspec
import pytest

import assay.runtime.free_memory
from assay.runtime.artifact import write_artifact
from assay.runtime.manifest import DecoderInfo, Weight, Workspace

GIB = 1 << 30


@pytest.fixture
def decoder_artifact(manifest, tmp_path):
    """An artifact whose weights are 3 MB by the manifest; nothing but that is read of them."""
    info = DecoderInfo(
        architecture="llama",
        vocabulary=1000,
        context_length=8192,
        layers=4,
        heads=8,
        kv_heads=2,
        head_dim=64,
        page_tokens=32,
        cache_dtype="float16",
        max_tokens=512,
        max_sequences=16,
        max_rows=64,
    )
    level = manifest.levels[0]
    entry = msgspec.structs.replace(level.entry, weights=("w",))
    workspace = Workspace(default_bytes=1000, maximum_bytes=2_000_000)
    changed = msgspec.structs.replace(
        manifest,
        decoder=info,
        weights=(Weight(name="w", dtype="uint8", shape=(3_000_000,), bytes=3_000_000),),
        levels=(msgspec.structs.replace(level, entry=entry, workspace=workspace),),
    )
    names = ("lib/model.so", "lib/libtvm_runtime.so", "weights.safetensors")
    return write_artifact(tmp_path / "decoder", changed, dict.fromkeys(names, b"none"))


@pytest.fixture
def free(monkeypatch):
    def set_free(count: int | None) -> None:
        monkeypatch.setattr(assay.runtime.free_memory, "free_memory", lambda: count)

    set_free(16 * GIB)
    return set_free


def test_an_artifact(cli, free, decoder_artifact):
    data = cli.json("estimate", decoder_artifact, "--context", 1000, "--batch", 3)
    (figures,) = data["schemes"].values()
    assert figures["weights_bytes"] == 3_000_000
    assert figures["cache_bytes"] == 3 * 32 * (4 * 2 * 2 * 32 * 64 * 2)  # 32 pages of 32 tokens each
    assert figures["workspace_bytes"] == 2_000_000 + 3 * 8 * 1000 * 4
    assert figures["total_bytes"] == sum(
        figures[f"{part}_bytes"] for part in ("weights", "cache", "workspace", "runtime")
    )
    assert (data["context"], data["batch"], data["free_bytes"], figures["fits"]) == (1000, 3, 16 * GIB, True)
    assert "1 x 4096 tokens, cache in float16" in cli("estimate", decoder_artifact).stdout


def test_another_cache(cli, free, decoder_artifact):
    def cache(dtype: str) -> int:
        (figures,) = cli.json("estimate", decoder_artifact, "--cache-dtype", dtype)["schemes"].values()
        return figures["cache_bytes"]

    assert cache("f32") == 2 * cache("f16")
    assert cache("int8") == cache("f16") // 2 * (64 + 4) // 64


def test_what_does_not_fit_is_refused_with_what_would(cli, free, decoder_artifact):
    free(80_000_000)
    error = cli.error("estimate", decoder_artifact, "--batch", 4, code=20)
    assert "does not fit into memory: it needs" in error["message"]
    assert "80.0 MB are free" in error["message"]
    words = error["hint"].split()
    context = int(words[words.index("of") + 1])
    (figures,) = cli.json("estimate", decoder_artifact, "--batch", 4, "--context", context)[
        "schemes"
    ].values()
    assert figures["fits"]
    cli.error("estimate", decoder_artifact, "--batch", 4, "--context", context + 32, code=20)
    free(70_000_000)
    assert "No context fits" in cli.error("estimate", decoder_artifact, code=20)["hint"]


def test_where_free_memory_is_not_known(cli, free, decoder_artifact):
    free(None)
    data = cli.json("estimate", decoder_artifact)
    assert data["free_bytes"] is None


def test_a_known_shape(cli, free):
    pytest.importorskip("onnx")
    data = cli.json("estimate", "llama-2-7b", "--context", 2048)
    sizes = {scheme: figures["weights_bytes"] for scheme, figures in data["schemes"].items()}
    elements = 6_738_415_616  # of Llama 2 7B, as its paper's weights have
    vectors = (2 * 32 + 1) * 4096
    assert sizes["f32"] == 4 * elements
    assert sizes["f16"] == sizes["bf16"] == pytest.approx(2 * elements, rel=1e-3)
    assert sizes["f16"] >= 2 * (elements - vectors)
    assert 1 < sizes["int8"] / elements < 1.15
    assert 0.5 < sizes["int4"] / elements < 0.7
    assert data["schemes"]["f32"]["cache_bytes"] == 2048 * 32 * 2 * 4096 * 2
    assert not data["schemes"]["f32"]["fits"]
    assert data["schemes"]["int4"]["fits"]
    (one,) = cli.json("estimate", "llama-2-7b", "--scheme", "int4-g64")["schemes"]
    assert one == "int4-g64"


def test_nothing_fits(cli, free):
    pytest.importorskip("onnx")
    free(GIB)
    assert "does not fit into memory in any" in cli.error("estimate", "llama-2-7b", code=20)["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["llama-2-7b", "--context", "5000"], 2, "from 1 to the model's 4096 tokens"),
        (["silero-vad"], 2, "silero-vad is not a decoder"),
        (["llama-3-7b"], 3, "no model named 'llama-3-7b'"),
        (["llama-2-7b", "--scheme", "int5"], 3, "int5"),
    ],
)
def test_wrong_input(cli, free, arguments, code, message):
    pytest.importorskip("onnx")
    assert message in cli.error("estimate", *arguments, code=code)["message"]


def test_an_artifact_that_is_no_decoder(cli, free, make_artifact):
    error = cli.error("estimate", make_artifact(), code=2)
    assert "is not a decoder" in error["message"]
    assert "assay run" in error["hint"]


def test_more_context_than_the_model_has(cli, free, decoder_artifact):
    error = cli.error("estimate", decoder_artifact, "--context", 9000, code=2)
    assert "from 1 to the model's 8192 tokens, not 9000" in error["message"]
