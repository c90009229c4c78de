"""The runtime in C++: what it makes of wrong input, and bundles. Executed under QEMU, where that is there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.bundle import write_bundle
from assay.compile.emulation.user_mode import UserMode, find_user_mode
from assay.compile.native import build_program, find_platform, platform_of, platforms
from assay.compile.targets import targets
from assay.compile.verify import reference_outputs
from assay.errors import ArtifactError, UnknownNameError, UsageError
from assay.models.registry import find_model
from assay.runtime.artifact import open_artifact
from assay.runtime.manifest import Execution

TARGET = "aarch64-neon"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def emulator() -> UserMode:
    found = find_user_mode(targets()[TARGET])
    if found is None:
        pytest.skip("needs QEMU's user mode, which ci/emulator.sh installs")
    return found


@pytest.fixture(scope="module")
def model_file(perceptron: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "perceptron.onnx"
    onnx.save_model(perceptron, path)
    return path


@pytest.fixture(scope="module")
def artifact(model_file: Path, cache: Path) -> Path:
    return build_artifact(find_model(str(model_file)), target=TARGET, cache=cache).path


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(emulator: UserMode) -> Run:
    """Run the program on these words."""
    program = build_program(find_platform("linux-aarch64"))

    def execute(*words: Any) -> subprocess.CompletedProcess[str]:
        command = [*emulator.command, str(program), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return execute


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copied"))


@pytest.fixture
def x(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((5, 20)).astype(np.float32))
    return tmp_path / "x.npy"


def test_outputs_are_those_of_onnx_runtime_with_any_number_of_threads(
    run: Run, artifact: Path, x: Path, tmp_path: Path, model_file: Path
) -> None:
    (expected,) = reference_outputs(model_file, [{"x": np.load(x)}])
    for threads in (1, 3):
        done = run(artifact, x, "--threads", threads, "--repeat", 2, "--output", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "y float32[5,7]" in done.stdout
        np.testing.assert_allclose(np.load(tmp_path / "0.npy"), expected["y"], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(np.load(tmp_path / "1.npy"), expected["z"])


def test_without_files_the_interface_is_shown(run: Run, artifact: Path) -> None:
    assert run(artifact).stdout == "x float32[-1,20]\n"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 20), np.float64), "Input x takes float32, not float64."),
        (np.zeros((5, 21), np.float32), "does not fit the model"),
        (np.zeros((5, 20, 1), np.float32), "does not fit the model"),
        (np.zeros((20,), np.float32), "does not fit the model"),
        (np.asfortranarray(np.zeros((5, 20), np.float32)), "not in the order of C"),
        (np.zeros((5, 20), np.complex64), "a dtype that this runtime does not take"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    run: Run, artifact: Path, tmp_path: Path, array: Any, message: str
) -> None:
    np.save(tmp_path / "bad.npy", array)
    done = run(artifact, tmp_path / "bad.npy")
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        ((), "usage:", 2),
        (("MODEL", "--threads", "0"), "--threads takes a number from 1", 2),
        (("MODEL", "--what"), "usage:", 2),
        (("/nowhere",), "cannot be opened", 1),
        (("MODEL", "/nowhere.npy"), "cannot be opened", 1),
        (("MODEL", "a.npy", "b.npy"), "takes 1 inputs, not 2", 2),
    ],
)
def test_wrong_words_are_refused(
    run: Run, artifact: Path, words: tuple[str, ...], message: str, status: int
) -> None:
    done = run(*(str(artifact) if word == "MODEL" else word for word in words))
    assert done.returncode == status
    assert message in done.stderr


def damage(path: Path, change: Callable[[Any], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def with_plan(path: Path, change: Callable[[Any], None]) -> None:
    """Change the plan, and its digest too."""
    import hashlib

    file = path / "lib" / "model.plan.json"
    plan = json.loads(file.read_text())
    change(plan)
    file.write_text(json.dumps(plan))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    damage(path, lambda manifest: manifest["files"]["lib/model.plan.json"].update(sha256=digest))


@pytest.mark.parametrize(
    ("name", "message"),
    [("lib/model.so", "its digest differs"), ("lib/model.plan.json", "its digest differs")],
)
def test_files_that_changed_are_refused(run: Run, copied: Path, name: str, message: str) -> None:
    with (copied / name).open("ab") as stream:
        stream.write(b" ")
    done = run(copied)
    assert done.returncode == 1
    assert f"{name} is damaged: {message}" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=9), "a schema that is not known"),
        (lambda m: m["levels"][0]["target"].update(triple="x86_64-linux-gnu"), "is for another machine"),
        (lambda m: m["levels"][0]["target"]["features"].append("sve2"), "This CPU lacks sve2"),
        (lambda m: m["levels"][0]["entry"].update(driver="tvm-vm"), "needs TVM's virtual machine"),
        (lambda m: m["levels"][0]["entry"]["weights"].append("none"), "has not all weights"),
    ],
)
def test_manifests_for_something_else_are_refused(
    run: Run, copied: Path, change: Callable[[Any], None], message: str
) -> None:
    damage(copied, change)
    done = run(copied)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "[" * 500, '{"levels": "\\u12"}', "nul"])
def test_a_manifest_that_is_no_json_is_refused(run: Run, copied: Path, text: str) -> None:
    (copied / "manifest.json").write_text(text)
    done = run(copied)
    assert done.returncode == 1
    assert "manifest.json" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(schema_version=2), "a schema that is not known"),
        (lambda p: p.update(flavour="device"), "not for a CPU"),
        (lambda p: p["tensors"][-1].update(index=99), "a tensor lies nowhere"),
        (lambda p: p["tensors"][-1].update(offset=1 << 40), "reaches beyond its memory"),
        (lambda p: p["tensors"][-1].update(offset=-64), "reaches beyond its memory"),
        (lambda p: p["tensors"][-1].update(shape=["nobody"]), "a symbol that is not there"),
        (lambda p: p["tensors"][-1].update(shape=[["//", 1, 0]]), "divided by zero"),
        (lambda p: p["tensors"][-1].update(shape=[["*", 1 << 40, 1 << 40]]), "beyond 64 bits"),
        (lambda p: p["tensors"][-1].update(shape=[["^", 1, 2]]), "an operator that is not known"),
        (lambda p: p["steps"][0].update(kernel=77), "runs a kernel that is not there"),
        (lambda p: p["steps"][0]["arguments"].append(9999), "takes what is not there"),
        (lambda p: p["kernels"][0].update(name="unheard_of"), "no kernel unheard_of"),
        (lambda p: p["outputs"].pop(), "does not fit the manifest"),
        (lambda p: p["weights"].pop(), "takes other weights"),
    ],
)
def test_plans_that_are_wrong_are_refused(
    run: Run, copied: Path, x: Path, change: Callable[[Any], None], message: str
) -> None:
    with_plan(copied, change)
    done = run(copied, x)
    assert done.returncode == 1, done
    assert message in done.stderr


def test_a_bundle_runs_where_nothing_else_is(
    emulator: UserMode, artifact: Path, x: Path, tmp_path: Path, model_file: Path
) -> None:
    bundle = write_bundle(artifact, tmp_path / "device", platform="linux-aarch64")
    names = {str(path.relative_to(bundle.path)) for path in bundle.path.rglob("*") if path.is_file()}
    assert {"README.txt", "bin/assay-run", "lib/libassay_runtime.so", "include/assay.h", "include/assay.hpp",
            "assay_model.py", "example.cc", "model/manifest.json", "model/lib/model.so"} <= names  # fmt: skip
    assert not any("tvm" in name for name in names)
    assert bundle.executed is Execution.EMULATED
    assert bundle.bytes - bundle.model_bytes < 1_000_000
    open_artifact(bundle.path / "model")  # whole, with digests that hold
    # The program asks for no interpreter and no library: nothing of the system's is used.
    program = (bundle.path / "bin" / "assay-run").read_bytes()
    assert b"ld-linux" not in program
    assert b"libc.so" not in program
    command = [
        *emulator.command,
        str(bundle.path / "bin" / "assay-run"),
        ".",
        str(x),
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=bundle.path, capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
    (expected,) = reference_outputs(model_file, [{"x": np.load(x)}])
    np.testing.assert_allclose(np.load(tmp_path / "0.npy"), expected["y"], rtol=1e-4, atol=1e-4)
    again = write_bundle(artifact, bundle.path, platform="linux-aarch64")
    assert again.bytes == bundle.bytes


def test_bundles_that_cannot_be(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="linux-arch64"):
        write_bundle(artifact, tmp_path / "a", platform="linux-arch64")
    with pytest.raises(ArtifactError, match="no level for linux-riscv64, only aarch64-neon"):
        write_bundle(artifact, tmp_path / "a", platform="linux-riscv64")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="no bundle"):
        write_bundle(artifact, tmp_path / "mine", platform="linux-aarch64")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_every_platform_is_that_of_a_triple() -> None:
    for name, platform in platforms().items():
        assert platform_of(f"{platform.machine}-{platform.system}-gnu") == platform
        assert platform.name == name
    assert platform_of("wasm32-unknown-unknown-wasm") is None
