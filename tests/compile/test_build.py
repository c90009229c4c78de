from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import assay.compile.targets.native as native
import assay.runtime.cpu as cpu
from assay.compile import stamps
from assay.compile.build import BuildResult, build_artifact
from assay.compile.reverify import verify_again
from assay.compile.targets import targets
from assay.compile.verify import reference_outputs
from assay.errors import (
    ArtifactError,
    CpuFeatureError,
    ModelError,
    StorageError,
    UnknownNameError,
    VerificationError,
)
from assay.models.registry import find_model
from assay.models.spec import Tolerance
from assay.runtime import load
from assay.runtime.artifact import open_artifact

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Build = Callable[..., BuildResult]


class Steps:
    """Collects the names of the steps of a build."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.names.append(name)
        yield


@pytest.fixture
def build(needs_avx2: None, cache: Path, tmp_path: Path) -> Build:
    """Build a model that is saved as an ONNX file first."""

    def run(model: onnx.ModelProto, **options: Any) -> BuildResult:
        path = tmp_path / "model.onnx"
        onnx.save_model(model, path)
        options = {"target": "x86-64-v3", "cache": cache, "output": tmp_path / "out", **options}
        return build_artifact(find_model(str(path)), **options)

    return run


def agree(result: BuildResult, model: onnx.ModelProto, inputs: dict[str, Any]) -> None:
    """Compare what the artifact computes with ONNX Runtime."""
    (expected,) = reference_outputs(model.SerializeToString(), [inputs])
    outputs = load(result.path, threads=1).run(inputs)
    assert outputs.keys() == expected.keys()
    for name, wanted in expected.items():
        assert outputs[name].dtype == wanted.dtype
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-4, atol=1e-5)


def rows(count: int) -> Any:
    return np.random.default_rng(count).standard_normal((count, 20), dtype=np.float32)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_build_of_a_file_with_a_symbolic_batch(
    build: Build, perceptron: onnx.ModelProto, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = Steps()
    result = build(perceptron, progress=steps)
    assert capfd.readouterr() == ("", "")
    manifest = result.manifest
    assert open_artifact(result.path).manifest == manifest
    assert (manifest.model.name, manifest.scheme, manifest.profile) == ("model", "f32", "release")
    (level,) = manifest.levels
    assert level.target.name == "x86-64-v3"
    assert level.executed == "native"
    assert {"batch": 1} in [case.sizes for case in level.verification.cases]
    assert {case.output for case in level.verification.cases} == {"y", "z"}
    assert set(steps.names) >= {"import", "fuse", "generate code", "link", "verify"}
    for count in (1, 2, 7, 64):
        agree(result, perceptron, {"x": rows(count)})
    unaligned = np.zeros(3 * 20 + 1, np.float32)[1:].reshape(3, 20)
    unaligned[:] = rows(3)
    agree(result, perceptron, {"x": unaligned})


def test_second_build_comes_from_the_cache(build: Build, perceptron: onnx.ModelProto, tmp_path: Path) -> None:
    first = build(perceptron)
    second = build(perceptron, output=tmp_path / "again")
    assert second.cached
    assert files(second.path) == files(first.path)
    packed = build(perceptron, output=tmp_path / "one.assay", packed=True)
    assert packed.cached
    assert packed.path.is_file()
    agree(packed, perceptron, {"x": rows(5)})
    kept = build(perceptron, output=None)
    assert kept.cached
    assert files(kept.path) == files(first.path)


def test_damaged_entry_of_the_cache_is_built_anew(
    perceptron_file: Path, tmp_path: Path, needs_avx2: None
) -> None:
    spec = find_model(str(perceptron_file))
    first = build_artifact(spec, target="x86-64-v3", cache=tmp_path / "cache")
    whole = files(first.path)
    (first.path / "manifest.json").unlink()
    second = build_artifact(spec, target="x86-64-v3", cache=tmp_path / "cache")
    assert not second.cached
    assert files(second.path) == whole


def test_output_that_an_earlier_build_wrote_is_left_alone(
    build: Build, perceptron: onnx.ModelProto, tmp_path: Path
) -> None:
    for packed in (False, True):
        out = tmp_path / f"out-{packed}"
        build(perceptron, output=out, packed=packed)
        inode = out.stat().st_ino
        assert build(perceptron, output=out, packed=packed).path == out
        assert out.stat().st_ino == inode
        changed = out if packed else out / "manifest.json"
        content = changed.read_bytes()
        changed.write_bytes(content.replace(b"release", b"RELEASE"))
        build(perceptron, output=out, packed=packed)
        assert changed.read_bytes() == content
    build(perceptron, output=tmp_path / "out-False", profile="debug")
    assert open_artifact(tmp_path / "out-False").manifest.profile == "debug"


def test_entry_that_a_disk_damaged_is_not_copied(
    build: Build, perceptron: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = build(perceptron, output=None).path
    library = next(entry.rglob("*.so"))
    content = bytearray(library.read_bytes())
    content[-1] ^= 1
    library.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(
            stamps, "unchanged_note", lambda record, path: None if "outputs" in record.parts else ""
        )
        with pytest.raises(StorageError, match="was damaged"):
            build(perceptron, output=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not build(perceptron, output=tmp_path / "copy").cached


def test_debug_profile(build: Build, perceptron: onnx.ModelProto) -> None:
    result = build(perceptron, profile="debug")
    assert result.manifest.profile == "debug"
    agree(result, perceptron, {"x": rows(3)})


def test_scalars_and_integers_as_inputs(build: Build, make_model: MakeModel) -> None:
    nodes = [
        node("Mul", ["x", "s"], ["scaled"]),
        node("Gather", ["scaled", "i"], ["y"], axis=1),
        node("Not", ["flags"], ["z"]),
    ]
    model = make_model(
        nodes,
        {"x": ["n", 20], "s": [], "i": ([2], "int32"), "flags": (["n"], "bool")},
        {"y": ["n", 2], "z": (["n"], "bool")},
    )
    inputs = {
        "x": rows(3),
        "s": np.array(2, np.float32),
        "i": np.array([1, -1], np.int32),
        "flags": np.array([True, False, True]),
    }
    agree(build(model), model, inputs)


def test_graph_with_odd_names_and_outputs(build: Build, make_model: MakeModel) -> None:
    """Names that are no identifiers, an input as output, a constant as output, an input that is not read."""
    nodes = [
        node("Identity", ["größe/x:0"], ["same as.1"]),
        node("Identity", ["w"], ["constant"]),
        node("MatMul", ["größe/x:0", "v"], ["weights"]),
    ]
    weights = {"w": rows(2), "v": rows(4).T.copy()}
    model = make_model(
        nodes,
        {"größe/x:0": ["Stapel größe", 20], "not read": ["Stapel größe"]},
        {"same as.1": ["Stapel größe", 20], "constant": [2, 20], "weights": ["Stapel größe", 4]},
        weights,
    )
    inputs = {"größe/x:0": rows(3), "not read": np.zeros(3, np.float32)}
    agree(build(model), model, inputs)


def test_same_bytes_whatever_the_hash_seed(
    build: Build, perceptron: onnx.ModelProto, perceptron_file: Path, tmp_path: Path
) -> None:
    first = build(perceptron)
    renamed = perceptron_file.with_name("model.onnx")
    program = (
        "import sys; from pathlib import Path; from assay.models.registry import find_model;"
        "from assay.compile.build import build_artifact;"
        "build_artifact(find_model(sys.argv[1]), target='x86-64-v3', cache=Path(sys.argv[2]), "
        "output=Path(sys.argv[3]))"
    )
    again = tmp_path / "again"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run(
        [sys.executable, "-c", program, str(renamed), str(tmp_path / "own"), str(again)],
        check=True,
        env=environment,
    )
    assert files(again) == files(first.path)


def test_output_may_replace_an_artifact_but_nothing_else(
    build: Build, perceptron: onnx.ModelProto, tmp_path: Path
) -> None:
    build(perceptron)
    assert build(perceptron).cached
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    with pytest.raises(Exception, match="not such an artifact"):
        build(perceptron, output=other)
    assert (other / "thesis.txt").read_text() == "years"


@pytest.fixture
def without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that has AVX2 but not AVX-512."""
    found = cpu.detect_cpu()
    fake = dataclasses.replace(
        found, features=frozenset(f for f in found.features if not f.startswith("avx512"))
    )
    monkeypatch.setattr(cpu, "detect_cpu", lambda: fake)
    monkeypatch.setattr(native, "detect_cpu", lambda: fake)


def test_target_that_this_machine_cannot_run(
    without_avx512: None, build: Build, perceptron: onnx.ModelProto
) -> None:
    result = build(perceptron, target="x86-64-v4")
    (level,) = result.manifest.levels
    assert level.executed == "never"
    assert "never executed" in (level.verification.note or "")
    assert "avx512f" in level.target.features
    with pytest.raises(CpuFeatureError, match="lacks avx512"):
        load(result.path)


def test_native_is_what_the_machine_has(
    without_avx512: None, build: Build, perceptron: onnx.ModelProto
) -> None:
    assert build(perceptron, target="native").manifest.levels[0].target.name == "x86-64-v3"


@pytest.mark.parametrize("field", ["target", "scheme", "profile"])
def test_unknown_names(build: Build, perceptron: onnx.ModelProto, tmp_path: Path, field: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no {field} named 'nonsense'"):
        build(perceptron, **{field: "nonsense"})
    assert not (tmp_path / "out").exists()


def test_element_type_that_no_artifact_can_take(build: Build, make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(
        [node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT)], {"x": ([3], "uint16")}, {"y": [3]}
    )
    with pytest.raises(ModelError, match="uint16"):
        build(model)
    assert not (tmp_path / "out").exists()


def test_existing_artifact_is_verified_again(
    build: Build, perceptron: onnx.ModelProto, make_model: MakeModel, cache: Path, tmp_path: Path
) -> None:
    result = build(perceptron)
    spec = find_model(str(tmp_path / "model.onnx"))
    (cases,) = verify_again(result.path, spec, cache=cache).values()
    assert len(cases) == len(result.manifest.levels[0].verification.cases)
    strict = dataclasses.replace(spec, tolerance=Tolerance(absolute=0.0, relative=0.0))
    if any(case.max_absolute_error for case in cases):
        with pytest.raises(VerificationError, match="'y'"):
            verify_again(result.path, strict, cache=cache)
    other = tmp_path / "other.onnx"
    onnx.save_model(make_model([node("Relu", ["x"], ["y"])], {"x": [3]}, {"y": [3]}), other)
    with pytest.raises(ArtifactError, match="another model"):
        verify_again(result.path, find_model(str(other)), cache=cache)


def test_manifest_names_what_made_it(build: Build, perceptron: onnx.ModelProto) -> None:
    result = build(perceptron)
    text = (result.path / "manifest.json").read_text()
    assert {"apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime"} <= json.loads(text)["tools"].keys()
    assert str(result.path.parent) not in text
    assert targets()["x86-64-v3"].features == result.manifest.levels[0].target.features


def test_one_artifact_of_several_levels(
    without_avx512: None, build: Build, perceptron: onnx.ModelProto, cache: Path, tmp_path: Path
) -> None:
    """The v4 and VNNI levels differ in 8-bit products alone, so that they share their weights."""
    result = build(perceptron, target="x86-64-v4-vnni,x86-64-v2,haswell,x86-64-v4")
    levels = result.manifest.levels
    names = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-vnni"]
    assert [level.target.name for level in levels] == names
    assert [level.executed for level in levels] == ["native", "native", "never", "never"]
    assert [level.entry.library for level in levels] == [f"lib/{name}/model.so" for name in names]
    assert all(level.verification.cases for level in levels)
    assert levels[2].entry.weights == levels[3].entry.weights
    assert load(result.path).level.target.name == "x86-64-v3"
    inputs = {"x": rows(5)}
    (expected,) = reference_outputs(perceptron.SerializeToString(), [inputs])
    for name in names[:2]:
        outputs = load(result.path, level=name).run(inputs)
        np.testing.assert_allclose(outputs["y"], expected["y"], rtol=1e-4, atol=1e-5)
    with pytest.raises(CpuFeatureError, match="lacks avx512"):
        load(result.path, level="x86-64-v4")
    again = build(perceptron, target=names, output=tmp_path / "again")
    assert again.cached
    assert files(again.path) == files(result.path)
    found = verify_again(result.path, find_model(str(tmp_path / "model.onnx")), cache=cache)
    assert list(found) == names[:2]
    alone = verify_again(
        result.path, find_model(str(tmp_path / "model.onnx")), level="x86-64-v2", cache=cache
    )
    assert list(alone) == names[:1]
