from __future__ import annotations

import errno
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from assay.errors import ArtifactError, ArtifactVersionError, StorageError
from assay.runtime import artifact as module
from assay.runtime.artifact import open_artifact, write_artifact
from assay.runtime.manifest import SCHEMA_VERSION, decode_manifest, encode_manifest
from assay.runtime.weights import save_weights

ROWS, COLUMNS = 96, 33


@pytest.fixture
def files(tmp_path):
    """Files that make a whole artifact; its code is never loaded here."""
    folder = tmp_path / "source"
    folder.mkdir()
    weights = {
        "w": np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS),
        "b": np.arange(COLUMNS, dtype=np.float32),
    }
    save_weights(folder / "weights.safetensors", weights)
    return {
        "lib/model.so": b"model code" * 10,
        "lib/libtvm_runtime.so": b"runtime code" * 10,
        "weights.safetensors": folder / "weights.safetensors",
        "LICENSE.model": b"licence",
    }


@pytest.fixture(params=[False, True], ids=["directory", "one file"])
def packed(request):
    return request.param


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_round_trip(here, files, make_manifest, packed):
    path = write_artifact(here / "x", make_manifest(), files, packed=packed)
    opened = open_artifact(path)
    assert opened.packed is packed
    assert opened.manifest.files.keys() == files.keys()
    assert msgspec.structs.replace(opened.manifest, files={}) == make_manifest()
    assert opened.read("LICENSE.model") == b"licence"
    assert opened.path("lib/model.so").read_bytes() == b"model code" * 10
    assert opened.path("lib/model.so").is_absolute()
    weights = opened.weights()
    assert list(weights) == ["w", "b"]
    np.testing.assert_array_equal(weights["b"], np.arange(COLUMNS))
    assert {weight.ctypes.data % 64 for weight in weights.values()} == {0}
    assert [path.name for path in here.iterdir()] == ["x"]


def _bytes(path: Path) -> dict[str, bytes]:
    found = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {str(each.relative_to(path)): each.read_bytes() for each in found}


def test_same_inputs_give_the_same_bytes(here, files, make_manifest, packed):
    one = write_artifact(here / "1", make_manifest(), files, packed=packed)
    other = write_artifact(here / "2", make_manifest(), dict(reversed(files.items())), packed=packed)
    assert _bytes(one) == _bytes(other)


def test_digest_of_the_manifest_is_what_sha256sum_checks(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    command = ["sha256sum", "-c", "manifest.sha256"]
    assert subprocess.run(command, cwd=path, capture_output=True, check=False).returncode == 0


def test_replaces_an_artifact_and_nothing_else(here, files, make_manifest, packed):
    path = write_artifact(here / "x", make_manifest(), files, packed=packed)
    write_artifact(path, make_manifest(scheme="int8"), files, packed=packed)
    assert open_artifact(path).manifest.scheme == "int8"
    with pytest.raises(StorageError, match="left alone"):
        write_artifact(path, make_manifest(), files, packed=not packed)
    assert open_artifact(path).manifest.scheme == "int8"


def test_files_must_have_the_digests_that_are_asked_for(here, files, make_manifest, packed):
    path = write_artifact(here / "x", make_manifest(), files, packed=packed)
    digests = open_artifact(path).manifest.files
    write_artifact(path, make_manifest(scheme="int8"), files, packed=packed, digests=digests)
    assert open_artifact(path).manifest.scheme == "int8"
    damaged = {**files, "LICENSE.model": b"Licence"}
    with pytest.raises(ArtifactError, match=r"LICENSE\.model is damaged"):
        write_artifact(path, make_manifest(), damaged, packed=packed, digests=digests)
    assert open_artifact(path).manifest.scheme == "int8"


@pytest.mark.parametrize("packed_too", [False, True])
def test_leaves_other_files_alone(here, files, make_manifest, packed_too):
    (here / "documents").mkdir()
    (here / "documents" / "thesis.txt").write_text("precious")
    (here / "model.onnx").write_text("precious")
    for name in ("documents", "model.onnx"):
        with pytest.raises(StorageError, match="left alone"):
            write_artifact(here / name, make_manifest(), files, packed=packed_too)
    assert (here / "documents" / "thesis.txt").read_text() == "precious"
    assert (here / "model.onnx").read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "a//b", "a/", ".", "", "a\\b", "c:x", "a\nb", "manifest.json"]
)
def test_file_names_that_are_refused(here, make_manifest, name):
    with pytest.raises(ValueError, match="file name"):
        write_artifact(here / "x", make_manifest(), {name: b""})
    assert list(here.iterdir()) == []


def test_one_flipped_bit_in_any_file(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    generator = random.Random(0)
    for name, content in _bytes(path).items():
        for _ in range(8):
            data = bytearray(content)
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            (path / name).write_bytes(data)
            with pytest.raises(ArtifactError, match=r"manifest\.json|" + name.replace(".", r"\.")):
                open_artifact(path)
        (path / name).write_bytes(content)
    open_artifact(path)


def test_one_flipped_bit_in_the_one_file_form(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files, packed=True)
    original = path.read_bytes()
    generator = random.Random(0)
    for _ in range(300):
        data = bytearray(original)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match="damaged"):
            open_artifact(path)


def test_without_verification_digests_of_files_are_not_checked(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    (path / "LICENSE.model").write_bytes(b"LICENCE")
    with pytest.raises(ArtifactError, match=r"LICENSE\.model"):
        open_artifact(path)
    open_artifact(path, verify=False)


def test_missing_extra_and_resized_files(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    (path / "lib" / "extra.so").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"lib/extra\.so.*not listed"):
        open_artifact(path, verify=False)
    (path / "lib" / "extra.so").unlink()
    (path / "lib" / "model.so").write_bytes(b"shorter")
    with pytest.raises(ArtifactError, match=r"lib/model\.so.*7 bytes, not 100"):
        open_artifact(path, verify=False)
    (path / "lib" / "model.so").unlink()
    with pytest.raises(ArtifactError, match=r"lib/model\.so is missing"):
        open_artifact(path)


def test_links_are_refused(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    (here / "model.so").write_bytes(b"model code" * 10)
    (path / "lib" / "model.so").unlink()
    (path / "lib" / "model.so").symlink_to(here / "model.so")
    with pytest.raises(ArtifactError, match=r"lib/model\.so.*link"):
        open_artifact(path)
    shutil.move(path / "lib", here / "lib")
    (path / "lib").symlink_to(here / "lib")
    with pytest.raises(ArtifactError, match=r"lib.*link"):
        open_artifact(path)


def _rewrite(path: Path, change) -> None:
    """Change the manifest, and its digest with it."""
    document = json.loads((path / "manifest.json").read_bytes())
    change(document)
    content = json.dumps(document).encode()
    (path / "manifest.json").write_bytes(content)
    digest = module.hashlib.sha256(content).hexdigest()
    (path / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def test_names_in_the_manifest_cannot_leave_the_artifact(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    (here / "outside").write_bytes(b"")
    digest = {"sha256": module.hashlib.sha256(b"").hexdigest(), "bytes": 0}
    _rewrite(path, lambda document: document["files"].update({"../outside": digest}))
    with pytest.raises(ArtifactError, match="not a plain relative path"):
        open_artifact(path)


@pytest.mark.parametrize("name", ["../model.so", "/lib/x86_64-linux-gnu/libc.so.6", "lib/other.so"])
def test_entry_must_be_a_listed_file(here, files, make_manifest, name):
    path = write_artifact(here / "x", make_manifest(), files)
    _rewrite(path, lambda document: document["levels"][0]["entry"].update(library=name))
    with pytest.raises(ArtifactError, match="does not list"):
        open_artifact(path)


def test_newer_schema(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    _rewrite(path, lambda document: document.update(schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(ArtifactVersionError):
        open_artifact(path)


def test_weights_that_differ_from_the_manifest(here, files, make_manifest):
    manifest = make_manifest()
    weights = (msgspec.structs.replace(manifest.weights[0], shape=(COLUMNS, ROWS)), manifest.weights[1])
    path = write_artifact(here / "x", msgspec.structs.replace(manifest, weights=weights), files)
    with pytest.raises(ArtifactError, match="differ in w"):
        open_artifact(path).weights()


def test_weights_file_must_be_there(here, files, make_manifest, make_level):
    del files["weights.safetensors"]
    path = write_artifact(here / "x", make_manifest(), files)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        open_artifact(path)
    entry = msgspec.structs.replace(make_manifest().levels[0].entry, weights=())
    level = make_level("native", entry=entry)
    path = write_artifact(here / "y", make_manifest(weights=(), levels=(level,)), files)
    assert open_artifact(path).weights() == {}


def test_weights_of_a_level_must_be_listed(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(weights=make_manifest().weights[:1]), files)
    with pytest.raises(ArtifactError, match="native takes the weight b, which is not listed"):
        open_artifact(path)


def test_not_an_artifact(here, tmp_path):
    with pytest.raises(ArtifactError, match="no artifact at"):
        open_artifact(here / "absent")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        open_artifact(here)
    (here / "file").write_text("hello")
    with pytest.raises(ArtifactError, match="not an artifact"):
        open_artifact(here / "file")


def test_file_that_the_artifact_lacks(here, files, make_manifest):
    opened = open_artifact(write_artifact(here / "x", make_manifest(), files))
    with pytest.raises(ArtifactError, match="no file nothing"):
        opened.path("nothing")


def test_no_room_leaves_the_old_artifact(here, files, make_manifest, packed, monkeypatch):
    path = write_artifact(here / "x", make_manifest(), files, packed=packed)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_seal", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_artifact(path, make_manifest(scheme="int8"), files, packed=packed)
    assert open_artifact(path).manifest.scheme == "f32"
    assert [each.name for each in here.iterdir()] == ["x"]


def test_limit_on_file_sizes(here, files, make_manifest, packed):
    """A real failing write: the kernel refuses to let any file grow beyond the limit."""
    files["weights.safetensors"] = bytes(1 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            write_artifact(here / "x", make_manifest(), files, packed=packed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert list(here.iterdir()) == []


_WRITER = """
    import sys
    from pathlib import Path
    from assay.runtime.artifact import write_artifact
    from assay.runtime.manifest import decode_manifest
    manifest = decode_manifest(Path(sys.argv[2]).read_bytes())
    files = {
        "lib/model.so": b"new" * 100_000,
        "lib/libtvm_runtime.so": b"new" * 100_000,
        "weights.safetensors": Path(sys.argv[3]),
    }
    print("ready", flush=True)
    while True:
        write_artifact(Path(sys.argv[1]), manifest, files, packed=sys.argv[4] == "True")
"""


def test_killed_while_writing(here, files, make_manifest, packed, tmp_path):
    path = write_artifact(here / "x", make_manifest(), files, packed=packed)
    (tmp_path / "manifest").write_bytes(encode_manifest(make_manifest(scheme="int8")))
    arguments = [path, tmp_path / "manifest", files["weights.safetensors"], packed]
    command = [sys.executable, "-c", textwrap.dedent(_WRITER), *map(str, arguments)]
    generator = random.Random(1)
    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0, 0.04))
            process.kill()
        assert open_artifact(path).manifest.scheme in ("f32", "int8")
    write_artifact(path, make_manifest(scheme="f16"), files, packed=packed)
    assert open_artifact(path).manifest.scheme == "f16"
    assert [each.name for each in here.iterdir()] == ["x"]


def test_manifest_on_disk_is_the_encoded_one(here, files, make_manifest):
    path = write_artifact(here / "x", make_manifest(), files)
    content = (path / "manifest.json").read_bytes()
    assert encode_manifest(decode_manifest(content)) == content
