from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from assay.errors import ArtifactError, ArtifactVersionError
from assay.runtime.manifest import (
    SCHEMA_VERSION,
    Verification,
    VerifiedCase,
    decode_manifest,
    encode_manifest,
    manifest_schema,
)

SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "manifest.schema.json"


def test_round_trip(make_manifest, make_level):
    case = VerifiedCase(
        sizes={"batch": 3},
        output="y",
        max_absolute_error=1e-6,
        max_relative_error=1e-5,
        cosine_similarity=1.0,
        absolute_tolerance=1e-4,
        relative_tolerance=1e-3,
    )
    verification = Verification(reference="onnxruntime 1", cases=(case,))
    manifest = make_manifest(levels=(make_level("native", "avx2", verification=verification),))
    data = encode_manifest(manifest)
    assert decode_manifest(data) == manifest
    assert data.endswith(b"}\n")
    assert encode_manifest(decode_manifest(data)) == data


def test_values_that_json_cannot_hold(make_manifest, make_level):
    case = VerifiedCase(
        sizes={},
        output="y",
        max_absolute_error=float("nan"),
        max_relative_error=0.0,
        cosine_similarity=1.0,
        absolute_tolerance=1e-4,
        relative_tolerance=1e-3,
    )
    verification = Verification(reference="onnxruntime 1", cases=(case,))
    with pytest.raises(ValueError, match="max_absolute_error"):
        encode_manifest(make_manifest(levels=(make_level("native", verification=verification),)))


def test_keys_are_in_one_order(make_manifest):
    one = encode_manifest(make_manifest(tools={"a": "1", "b": "2"}))
    other = encode_manifest(make_manifest(tools={"b": "2", "a": "1"}))
    assert one == other


def test_checked_in_schema_is_current():
    generated = json.dumps(manifest_schema(), indent=2, sort_keys=True) + "\n"
    assert SCHEMA.read_text() == generated, (
        "stale; run: python -m assay.runtime.manifest > docs/schema/manifest.schema.json"
    )


def test_schema_accepts_a_manifest_and_refuses_an_unknown_field(make_manifest):
    validator = jsonschema.Draft202012Validator(manifest_schema())
    document = json.loads(encode_manifest(make_manifest()))
    validator.validate(document)
    document["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        validator.validate(document)


def test_newer_schema(make_manifest):
    document = json.loads(encode_manifest(make_manifest()))
    document["schema_version"] = SCHEMA_VERSION + 1
    document["a_field_of_the_future"] = {}
    with pytest.raises(ArtifactVersionError, match=f"schema {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
        decode_manifest(json.dumps(document).encode())


def _change(document, path, value):
    *parents, last = path
    for key in parents:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("model", "weights"), "guessed", r"\$\.model\.weights"),
        (("model", "surprise"), 1, r"surprise.*\$\.model"),
        (("levels", 0, "target", "features", 0), 7, r"\$\.levels\[0\]\.target\.features\[0\]"),
        (("levels", 0, "executed"), "maybe", r"\$\.levels\[0\]\.executed"),
        (("levels",), [], r"length.*\$\.levels"),
        (("inputs", 0, "dtype"), "complex64", r"\$\.inputs\[0\]\.dtype"),
        (("inputs", 0, "shape", 1), -1, r"\$\.inputs\[0\]\.shape\[1\]"),
        (("model", "source_digest"), "md5:1", r"\$\.model\.source_digest"),
        (("schema_version",), "1", r"\$\.schema_version"),
        (("schema_version",), 0, "no manifest schema 0"),
    ],
)
def test_wrong_field_is_named(make_manifest, make_level, path, value, words):
    document = json.loads(encode_manifest(make_manifest(levels=(make_level("native", "avx2"),))))
    _change(document, path, value)
    with pytest.raises(ArtifactError, match=words):
        decode_manifest(json.dumps(document).encode())


def test_older_schema():
    """Of any content: what an older schema held is not looked at."""
    with pytest.raises(
        ArtifactVersionError, match=f"schema 1; this Assay reads schema {SCHEMA_VERSION} only"
    ):
        decode_manifest(b'{"schema_version": 1, "target": {"executed": true}}')


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe{}", b'{"schema_version": 3}'])
def test_damaged_json(data):
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        decode_manifest(data)


def test_missing_field_is_named(make_manifest):
    document = json.loads(encode_manifest(make_manifest()))
    del document["levels"][0]["entry"]["function"]
    with pytest.raises(ArtifactError, match=r"function.*\$\.levels\[0\]\.entry"):
        decode_manifest(json.dumps(document).encode())
