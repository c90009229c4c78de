from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

import assay.runtime
from assay.errors import ArtifactError, CpuFeatureError, UnknownNameError
from assay.runtime import cpu
from assay.runtime.artifact import open_artifact
from assay.runtime.cpu import canonical_feature, detect_cpu
from assay.runtime.levels import LEVEL_VARIABLE, choose_level, fits


@pytest.fixture(autouse=True)
def _no_level_asked_for(monkeypatch):
    monkeypatch.delenv(LEVEL_VARIABLE, raising=False)


@pytest.fixture
def levels(make_level):
    """From plain to capable; no CPU has all features of the last."""
    return make_level("plain"), make_level("wide", "wide1"), make_level("widest", "wide1", "wide_2")


@pytest.fixture
def manifest(make_manifest, levels):
    return make_manifest(levels=levels)


def cpu_with(*features):
    return dataclasses.replace(
        detect_cpu(), name="Fake", features=frozenset(map(canonical_feature, features))
    )


@pytest.mark.parametrize(
    ("features", "chosen"),
    [((), "plain"), (("wide1",), "wide"), (("wide1", "wide_2", "more"), "widest"), (("wide_2",), "plain")],
)
def test_the_most_capable_level_that_the_cpu_has(manifest, features, chosen):
    assert choose_level(manifest, cpu=cpu_with(*features)).target.name == chosen


def test_a_level_that_is_asked_for(manifest, monkeypatch):
    able = cpu_with("wide1", "wide_2")
    assert choose_level(manifest, "plain", able).target.name == "plain"
    monkeypatch.setenv(LEVEL_VARIABLE, "wide")
    assert choose_level(manifest, cpu=able).target.name == "wide"
    assert choose_level(manifest, "plain", able).target.name == "plain"
    monkeypatch.setenv(LEVEL_VARIABLE, "")
    assert choose_level(manifest, cpu=able).target.name == "widest"


def test_a_level_that_the_cpu_or_the_artifact_lacks(manifest):
    with pytest.raises(CpuFeatureError, match=r"Fake.*lacks wide_2"):
        choose_level(manifest, "widest", cpu_with("wide1"))
    with pytest.raises(UnknownNameError, match="'widst'") as raised:
        choose_level(manifest, "widst", cpu_with())
    assert "widest" in (raised.value.hint or "")


def test_what_each_level_needs_where_none_fits(make_manifest, levels):
    other = msgspec.structs.replace(levels[0].target, triple="s390x-linux-gnu")
    manifest = make_manifest(levels=(msgspec.structs.replace(levels[0], target=other), *levels[1:]))
    with pytest.raises(CpuFeatureError) as raised:
        choose_level(manifest, cpu=cpu_with("wide_2"))
    assert raised.value.message == (
        "This CPU (Fake) can run none of the artifact's levels: "
        "plain is for s390x-linux-gnu; wide needs wide1; widest needs wide1."
    )
    assert raised.value.exit_code == 11
    assert [fits(level, cpu_with("wide_2")) for level in manifest.levels] == [False, False, False]


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "one file"])
def test_each_level_runs_with_its_own_library_and_weights(tiny, make_level, make_manifest, tmp_path, packed):
    """The second level has the library of the first under another name, and takes other weights."""
    entry = make_level("plain").entry
    second = msgspec.structs.replace(entry, library="lib/second/model.so", weights=("v", "b"))
    known = make_manifest().weights
    weights = (*known, msgspec.structs.replace(known[0], name="v"))
    arrays = {**tiny.weights, "v": -tiny.weights["w"]}
    files = dict(tiny.files)
    files["lib/second/model.so"] = files["lib/model.so"]
    files["weights.safetensors"] = tmp_path / "weights.safetensors"
    assay.runtime.weights.save_weights(files["weights.safetensors"], arrays)
    path = assay.runtime.artifact.write_artifact(
        tmp_path / "artifact",
        make_manifest(weights=weights, levels=(make_level("plain"), make_level("second", entry=second))),
        files,
        packed=packed,
    )
    x = np.random.default_rng(1).standard_normal((3, 96), dtype=np.float32)
    for name, sign in (("plain", 1), ("second", -1), (None, -1)):
        model = assay.runtime.load(path, level=name)
        assert model.level.target.name == (name or "second")
        expected = np.maximum(x @ (sign * tiny.weights["w"]) + tiny.weights["b"], 0)
        np.testing.assert_allclose(model.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-4)


def test_damage_to_a_level_that_would_not_run_is_found_too(
    tiny, make_level, make_manifest, tmp_path, monkeypatch
):
    entry = msgspec.structs.replace(make_level("plain").entry, library="lib/high/model.so")
    levels = (make_level("plain"), make_level("high", "wide1", entry=entry))
    files = {**tiny.files, "lib/high/model.so": tiny.files["lib/model.so"]}
    path = assay.runtime.artifact.write_artifact(tmp_path / "a", make_manifest(levels=levels), files)
    monkeypatch.setattr(cpu, "detect_cpu", cpu_with)
    assert assay.runtime.load(path).level.target.name == "plain"
    library = path / "lib" / "high" / "model.so"
    data = bytearray(library.read_bytes())
    data[100] ^= 1
    library.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"lib/high/model\.so.*damaged"):
        assay.runtime.load(path)
    library.unlink()
    with pytest.raises(ArtifactError, match=r"lib/high/model\.so is missing"):
        open_artifact(path)
