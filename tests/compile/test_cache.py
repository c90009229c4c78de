from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import onnx
import pytest

from assay.compile.build import _build_key
from assay.compile.cache import BuildCache, default_cache_folder, installed_versions, key_of, source_digest
from assay.compile.profiles import profiles
from assay.compile.quantize.prepare import AppliedScheme
from assay.compile.targets import targets
from assay.compile.variant import Variant
from assay.errors import ExternalDataError, StorageError
from assay.models.export import CanonicalModel, export_canonical
from assay.models.registry import find_model
from assay.models.spec import ModelSpec, Tolerance
from assay.progress import SilentProgress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """A provider that is not a user's file, and counts how often it is asked."""

    path: str
    log: str

    def onnx_path(self, folder: Path) -> Path:
        with Path(self.log).open("a") as stream:
            stream.write("asked\n")
        return Path(self.path)


@pytest.fixture
def spec(perceptron_file: Path) -> ModelSpec:
    provider = Counted(path=str(perceptron_file), log=str(perceptron_file.with_suffix(".log")))
    return dataclasses.replace(find_model(str(perceptron_file)), provider=provider)


def asked(spec: ModelSpec) -> int:
    assert isinstance(spec.provider, Counted)
    return len(Path(spec.provider.log).read_text().splitlines())


def test_registered_model_is_exported_once(spec: ModelSpec, tmp_path: Path) -> None:
    first = BuildCache(tmp_path / "cache").canonical(spec, SilentProgress())
    second = BuildCache(tmp_path / "cache").canonical(spec, SilentProgress())
    assert first == second
    assert asked(spec) == 1
    other = dataclasses.replace(spec, description="Another.")
    assert BuildCache(tmp_path / "cache").canonical(other, SilentProgress()).digest == first.digest
    assert asked(spec) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [("canonical.onnx", b"cut"), ("canonical.onnx", None), ("digests.json", b"{"), ("digests.json", None)],
)
def test_damaged_export_is_made_anew(
    spec: ModelSpec, tmp_path: Path, name: str, content: bytes | None
) -> None:
    cache = BuildCache(tmp_path / "cache")
    first = cache.canonical(spec, SilentProgress())
    whole = first.path.read_bytes()
    damaged = first.path.with_name(name)
    damaged.unlink() if content is None else damaged.write_bytes(content)
    assert cache.canonical(spec, SilentProgress()) == first
    assert first.path.read_bytes() == whole
    assert asked(spec) == 2


def test_changed_file_of_a_user_is_exported_anew(perceptron: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.ModelProto()
    model.CopyFrom(perceptron)
    digests = []
    for value in (1.0, 2.0):
        weights = np.full((20, 24), value, np.float32)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
        onnx.save_model(model, path)
        canonical = BuildCache(tmp_path / "cache").canonical(find_model(str(path)), SilentProgress())
        digests.append(canonical.digest)
    assert digests[0] != digests[1]


def test_file_of_a_user_that_did_not_change_is_exported_once(
    perceptron: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "model.onnx", BuildCache(tmp_path / "cache")
    model = onnx.ModelProto()
    model.CopyFrom(perceptron)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    first = cache.canonical(find_model(str(path)), SilentProgress())
    exports = []

    def export(*arguments: Any, **options: Any) -> CanonicalModel:
        exports.append(arguments)
        return export_canonical(*arguments, **options)

    monkeypatch.setattr("assay.compile.cache.export_canonical", export)
    assert cache.canonical(find_model(str(path)), SilentProgress()) == first
    assert not exports
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[::-1])
    second = cache.canonical(find_model(str(path)), SilentProgress())
    assert second.digest != first.digest
    assert len(exports) == 1
    second.path.write_bytes(b"cut")
    assert cache.canonical(find_model(str(path)), SilentProgress()) == second
    assert len(exports) == 2
    weights.unlink()
    with pytest.raises(ExternalDataError):
        cache.canonical(find_model(str(path)), SilentProgress())


def _key(
    canonical: CanonicalModel, target: str = "x86-64-v3", scheme: str = "f32", profile: str = "release"
) -> str:
    stored = AppliedScheme(name=scheme)
    return _build_key(canonical, targets()[target], stored, profiles()[profile], Variant())


def test_key_changes_with_everything_that_a_build_depends_on(spec: ModelSpec, tmp_path: Path) -> None:
    canonical = BuildCache(tmp_path).canonical(spec, SilentProgress())
    looser = dataclasses.replace(canonical.spec, tolerance=Tolerance(absolute=1.0))
    keys = [
        _key(canonical),
        _key(canonical, target="x86-64-v4"),
        _key(canonical, scheme="int8"),
        _key(canonical, profile="debug"),
        _key(dataclasses.replace(canonical, digest="sha256:" + "0" * 64)),
        _key(dataclasses.replace(canonical, spec=dataclasses.replace(canonical.spec, licence="MIT"))),
        _key(dataclasses.replace(canonical, spec=looser)),
    ]
    assert len(set(keys)) == len(keys)
    assert _key(dataclasses.replace(canonical, path=tmp_path / "elsewhere.onnx")) == keys[0]


def test_key_changes_with_the_source_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "imagined_package"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = source_digest("imagined_package")
    (package / "module.py").write_text("x = 2\n")
    assert source_digest("imagined_package") == before, "computed once per process"
    source_digest.cache_clear()
    after = source_digest("imagined_package")
    source_digest.cache_clear()
    assert before != after


def test_key_does_not_depend_on_the_order_of_a_mapping() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of([1, 2]) != key_of([2, 1])


def test_versions_of_what_is_installed() -> None:
    assert installed_versions(("onnx", "no-such-package")).keys() == {"onnx"}


def test_entry_is_locked_while_it_is_made(tmp_path: Path) -> None:
    with BuildCache(tmp_path).locked("artifacts", "key") as entry:
        lock = filelock.FileLock(entry.with_suffix(".lock"), timeout=0, is_singleton=False)
        with pytest.raises(filelock.Timeout):
            lock.acquire()
    with lock:
        pass


def test_lock_is_released_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No room"), BuildCache(tmp_path).locked("artifacts", "key"):
        raise OSError(28, "No room")
    with BuildCache(tmp_path).locked("artifacts", "key"):
        pass


def test_default_folder_is_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder().name == "builds"
    assert BuildCache().folder == default_cache_folder()


def test_digests_are_kept_with_the_export(spec: ModelSpec, tmp_path: Path) -> None:
    canonical = BuildCache(tmp_path / "cache").canonical(spec, SilentProgress())
    known = json.loads(canonical.path.with_name("digests.json").read_text())
    assert known["digests"] == {"digest": canonical.digest, "source_digest": canonical.source_digest}
    assert f"sha256:{known['files']['canonical.onnx']}" == canonical.digest


def test_a_specification_is_described_the_same_in_every_process() -> None:
    program = (
        "from assay.compile.cache import _code_digests, _described\n"
        "from assay.models.registry import models\n"
        "print([(_described(spec), _code_digests(spec)) for spec in models().values()])"
    )
    runs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in "ab"
    }
    assert len(runs) == 1
