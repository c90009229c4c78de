from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
import pytest
from onnx import TensorProto

from assay.cli.artifacts import canonical_behind, is_artifact
from assay.compile.cache import BuildCache
from assay.errors import ArtifactError
from assay.models.registry import find_model
from assay.progress import SilentProgress


def test_a_folder_of_a_model_is_no_artifact(tmp_path: Path) -> None:
    assert is_artifact(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert not is_artifact(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    assert is_artifact(str(tmp_path))


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    for name, content, expected in (
        ("model.gguf", b"GGUF", False),
        ("model.onnx", b"PK\x03\x04", False),
        ("packed", b"PK\x03\x04", True),
        ("packed.assay", b"", True),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_artifact(str(tmp_path / name)) is expected
    assert not is_artifact("resnet18")


def test_peers_get_the_weights_that_the_artifact_has(manifest, product_file, tmp_path):
    store, path = BuildCache(tmp_path / "cache"), tmp_path / "artifact"
    exported = store.canonical(find_model(product_file), SilentProgress())
    model = msgspec.structs.replace(manifest.model, canonical_digest=exported.digest)
    plain, narrow = (msgspec.structs.replace(manifest, model=model, scheme=s) for s in ("f32", "f16"))

    def weights(one):
        found = canonical_behind(path, one, product_file, tmp_path / "cache", SilentProgress())
        return {each.data_type for each in onnx.load(found.path).graph.initializer}

    assert weights(plain) == {TensorProto.FLOAT}
    assert weights(narrow) == {TensorProto.FLOAT16}


def test_an_artifact_of_another_model_has_no_peers(manifest, product_file, tmp_path):
    with pytest.raises(ArtifactError, match="was built from another model than 'product' is now"):
        canonical_behind(tmp_path, manifest, product_file, tmp_path / "cache", SilentProgress())


def test_a_model_that_is_not_known_is_not_behind_anything(manifest, tmp_path):
    assert canonical_behind(tmp_path, manifest, None, tmp_path / "cache", SilentProgress()) is None
