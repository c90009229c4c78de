from __future__ import annotations

import json

import msgspec

from assay.runtime.manifest import DecoderInfo


def test_the_manifest_as_json(cli, make_artifact):
    path = make_artifact()
    found = cli.json("inspect", path)
    assert found["path"] == str(path)
    assert found["manifest"]["model"]["name"] == "pair"


def test_model_interface_and_errors_for_people(cli, make_artifact):
    text = cli("inspect", make_artifact()).stdout
    for part in (
        "pair: A test.",
        "batch (1 to 8), 4",
        "1.00e-06",
        "onnxruntime 1.0",
        "executed and compared",
    ):
        assert part in text
    assert "lib/model.so" not in text
    assert "lib/model.so" in cli("inspect", make_artifact(), "-v").stdout


def test_what_was_never_executed_is_said_loudly(cli, make_artifact, never_executed):
    path = make_artifact(levels=(never_executed,))
    result = cli("inspect", path)
    assert "COMPILED, NOT EXECUTED" in result.stderr
    assert "COMPILED, NOT EXECUTED" in result.stdout
    assert "no AVX-512." in result.stderr
    quiet = cli("inspect", path, "-q", "--json")
    assert "NOT EXECUTED" in json.loads(quiet.stderr)["warning"]


def test_levels_and_which_of_them_this_machine_takes(cli, make_artifact, manifest):
    """One that any x86-64 CPU has, one that none has."""
    plain = msgspec.structs.replace(manifest.levels[0].target, name="plain", features=())
    high = msgspec.structs.replace(plain, name="high", features=("avx999",))
    levels = (
        msgspec.structs.replace(manifest.levels[0], target=plain, executed="emulated"),
        msgspec.structs.replace(manifest.levels[0], target=high, executed="never"),
    )
    result = cli("inspect", make_artifact(levels=levels))
    text = " ".join(result.stdout.split())
    for part in ("plain (x86_64-linux-gnu", "taken", "emulator", "avx999", "NOT EXECUTED"):
        assert part in text
    assert "no machine has run this code for high" in " ".join(result.stderr.split())
    assert "for plain" not in result.stderr


def test_a_flipped_bit_is_found(cli, make_artifact):
    path = make_artifact()
    library = path / "lib" / "model.so"
    library.write_bytes(b"nOne")
    assert "lib/model.so" in cli.error("inspect", path, code=9)["message"]


def test_what_a_language_model_is(cli, make_artifact):
    decoder = DecoderInfo(
        architecture="llama",
        vocabulary=49152,
        context_length=8192,
        layers=30,
        heads=9,
        kv_heads=3,
        head_dim=64,
        page_tokens=32,
        cache_dtype="float16",
        window=4096,
        max_tokens=512,
        max_sequences=16,
        max_rows=64,
        bos_ids=(1,),
        eos_ids=(2, 3),
    )
    text = " ".join(cli("inspect", make_artifact(decoder=decoder)).stdout.split())
    for part in (
        "llama, 30 layers",
        "9, 3 of keys and values, 64 elements each",
        "float16, 737,280 bytes for 32 tokens",
        "up to 512 tokens, 16 sequences, logits of 64 tokens",
        "4,096 tokens",
        "2, 3",
    ):
        assert part in text
    assert "Language model" not in cli("inspect", make_artifact()).stdout
