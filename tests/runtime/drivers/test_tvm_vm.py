from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import numpy as np
import pytest

import assay.runtime
from assay.errors import ArtifactError
from assay.runtime.drivers import tvm_vm
from assay.runtime.drivers.tvm_vm import _joined, _LoadedRuntime, _pass_out, _span


def _in_a_fresh_process(code: str, *arguments: object) -> None:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_ffi_version(tiny, tmp_path):
    path = tiny.write(tmp_path / "a", tools={"apache-tvm-ffi": "0.0.1"})
    with pytest.raises(ArtifactError, match=r"needs apache-tvm-ffi 0\.0\.1") as caught:
        assay.runtime.load(path)
    assert "apache-tvm-ffi==0.0.1" in (caught.value.hint or "")


def test_another_runtime_of_another_version(tiny_artifact, tiny, tmp_path, make_manifest, monkeypatch):
    assay.runtime.load(tiny_artifact)
    other = {**tiny.files, "lib/libtvm_runtime.so": b"another build"}
    tools = make_manifest().tools
    same = msgspec.structs.replace(make_manifest())
    path = assay.runtime.artifact.write_artifact(tmp_path / "same", same, other)
    assert assay.runtime.load(path).run({"x": np.zeros((1, 96), np.float32)})
    newer = make_manifest(tools={**tools, "apache-tvm": "99.0"})
    path = assay.runtime.artifact.write_artifact(tmp_path / "newer", newer, other)
    with pytest.raises(ArtifactError, match=r"needs TVM 99\.0; this process has loaded 0\.2"):
        assay.runtime.load(path)
    monkeypatch.setattr(_LoadedRuntime, "version", "99.0")
    assert assay.runtime.load(path)


def test_library_that_is_no_library(tiny, tmp_path, make_manifest):
    other = {**tiny.files, "lib/model.so": b"not code"}
    path = assay.runtime.artifact.write_artifact(tmp_path / "a", make_manifest(), other)
    with pytest.raises(ArtifactError, match=r"lib/model\.so cannot be loaded"):
        assay.runtime.load(path)


def test_library_that_was_replaced_is_loaded_anew(tiny, tmp_path, make_manifest, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny.write(tmp_path / "a")
    assay.runtime.load(path)
    # What follows the last section of a library is never read.
    changed = {**tiny.files, "lib/model.so": tiny.files["lib/model.so"].read_bytes() + b"changed"}
    assay.runtime.artifact.write_artifact(path, make_manifest(), changed)
    model = assay.runtime.load(path)
    digest = model.manifest.files["lib/model.so"].sha256
    loaded = tmp_path / "cache" / "assay" / "libraries" / digest / "model.so"
    assert str(loaded) in Path("/proc/self/maps").read_text()
    assert model.run({"x": np.zeros((1, 96), np.float32)})


def test_entry_point_that_is_not_there(tiny, tmp_path, make_level):
    entry = msgspec.structs.replace(make_level("native").entry, function="principal")
    with pytest.raises(ArtifactError, match=r"cannot be loaded.*principal"):
        assay.runtime.load(tiny.write(tmp_path / "a", levels=(make_level("native", entry=entry),)))


@pytest.mark.parametrize("order", ["before", "after"])
def test_beside_an_imported_tvm(tiny_artifact, order):
    """Two copies of TVM's runtime in one process would abort it."""
    imports = {"before": ("import tvm", ""), "after": ("", "import tvm")}[order]
    _in_a_fresh_process(
        f"""
        import sys, numpy
        sys.modules["torch"] = None
        {imports[0]}
        import assay.runtime
        model = assay.runtime.load(sys.argv[1])
        {imports[1]}
        model.run({{"x": numpy.zeros((2, 96), numpy.float32)}})
        maps = {{line.split()[-1] for line in open("/proc/self/maps") if "libtvm_runtime.so" in line}}
        assert len(maps) == 1, maps
        """,
        tiny_artifact,
    )


def test_runtime_comes_from_the_artifact_where_tvm_is_not_installed(tiny_artifact):
    _in_a_fresh_process(
        """
        import sys, assay.runtime
        from assay.runtime.drivers import tvm_vm
        tvm_vm._installed_runtime = lambda digest: None
        assay.runtime.load(sys.argv[1])
        maps = {line.split()[-1] for line in open("/proc/self/maps") if "libtvm_runtime.so" in line}
        assert maps == {sys.argv[1] + "/lib/libtvm_runtime.so"}, maps
        """,
        tiny_artifact,
    )


def test_installed_runtime_is_used_only_when_it_is_the_same():
    assert tvm_vm._installed_runtime("0" * 64) is None


def test_bfloat16_weights_reach_the_library_as_such(tiny_artifact):
    driver = assay.runtime.load(tiny_artifact)._driver
    bits = np.array([0x3FC0, 0xC000], np.uint16)
    tensor = driver._tensor(bits, "bfloat16")
    assert str(tensor.dtype) == "bfloat16"
    assert tuple(tensor.shape) == (2,)
    assert str(driver._tensor(bits, "uint16").dtype) == "uint16"


def test_outputs_in_memory_of_inputs_or_weights_are_copied():
    from assay.runtime.drivers.ffi import import_tvm_ffi

    tensor_of = import_tvm_ffi().from_dlpack
    buffer = np.arange(100, dtype=np.float32)
    shared = [_span(tensor_of(buffer[10:20]), 40)]
    for inside, copied in [
        (buffer[:10], False),
        (buffer[20:], False),
        (buffer[19:30], True),
        (buffer, True),
        (buffer[12:13], True),
    ]:
        output = _pass_out(tensor_of(inside), shared)
        np.testing.assert_array_equal(output, inside)
        assert np.shares_memory(output, buffer) is not copied


def test_spans_of_weights_are_joined():
    assert _joined([(4, 8), (64, 96), (16, 20)]) == [(4, 96)]
    assert _joined([]) == []


def test_inputs_are_used_where_they_are_when_they_can(tiny_artifact):
    driver = assay.runtime.load(tiny_artifact)._driver
    buffer = np.zeros(1024, np.float32)
    start = -buffer.ctypes.data % 64 // 4
    array, off = buffer[start : start + 96], buffer[start + 4 : start + 100]
    frozen = array.view()
    frozen.flags.writeable = False
    for given, same in [(array, True), (frozen, True), (off, False), (array[::-1], False)]:
        tensor = driver._pass_in(0, given)
        assert tensor.data_ptr() % 64 == 0
        assert (tensor.data_ptr() == given.ctypes.data) is same
        np.testing.assert_array_equal(np.from_dlpack(tensor), given)


def test_memory_for_copies_of_inputs_is_kept(tiny_artifact):
    driver = assay.runtime.load(tiny_artifact)._driver
    one, other = np.zeros((2, 96), np.float32)[::-1], np.ones((2, 96), np.float32)[::-1]
    kept = driver._pass_in(0, one).data_ptr()
    assert driver._pass_in(0, other).data_ptr() == kept
    assert np.from_dlpack(driver._pass_in(0, other)).all()
    assert driver._pass_in(0, np.ones((3, 96), np.float32)[::-1]).shape == (3, 96)
