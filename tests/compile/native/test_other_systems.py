"""Bundles for macOS and Windows: what their files ask of the system, read by lief; Windows under Wine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.cli.main import main
from assay.compile.build import build_artifact
from assay.compile.bundle import Bundle, write_bundle
from assay.compile.emulation.user_mode import find_user_mode
from assay.compile.native import find_platform, for_platform
from assay.compile.reverify import verify_again, verify_emulated
from assay.compile.targets import targets
from assay.compile.verify import reference_outputs
from assay.models.registry import find_model
from assay.runtime.artifact import open_artifact, write_artifact
from assay.runtime.manifest import Execution

pytestmark = pytest.mark.slow
PLATFORMS = {"macos-aarch64": "aarch64-neon", "macos-x86_64": "x86-64-v3", "windows-x86_64": "x86-64-v3"}
# Of every Windows 10: the kernel, and the universal C runtime behind the names of its API sets.
WINDOWS = ("kernel32.dll", "ntdll.dll", "ucrtbase.dll", "api-ms-win-crt-")
MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="module")
def model_file(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products that are large enough for several threads, and functions of C's mathematics."""
    node = onnx.helper.make_node
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((768, 2048)).astype(np.float32) / 28,
        "v": generator.standard_normal((2048, 96)).astype(np.float32) / 45,
    }
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Gelu", ["a"], ["g"], approximate="none"),
        node("MatMul", ["g", "v"], ["b"]),
        node("Sin", ["b"], ["s"]),
        node("Softmax", ["s"], ["y"], axis=1),
    ]
    path = tmp_path_factory.mktemp("model") / "products.onnx"
    onnx.save_model(make_model(nodes, {"x": ["batch", 768]}, {"y": ["batch", 96]}, weights, opset=20), path)
    return path


@pytest.fixture(scope="module")
def bundle(
    model_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Bundle]]:
    """The artifact and the bundle for a platform, made once."""
    made: dict[str, tuple[Path, Bundle]] = {}

    def make(platform: str) -> tuple[Path, Bundle]:
        if platform not in made:
            folder = tmp_path_factory.mktemp("systems")
            path = build_artifact(
                find_model(str(model_file)), target=PLATFORMS[platform], platform=platform, cache=cache,
                output=folder / "artifact",
            ).path  # fmt: skip
            made[platform] = (path, write_bundle(path, folder / "device", platform=platform))
        return made[platform]

    return make


def kernels(folder: Path) -> Path:
    (level,) = open_artifact(folder / "model").manifest.levels
    return folder / "model" / level.entry.library


@pytest.mark.parametrize("platform", ["macos-aarch64", "macos-x86_64"])
def test_files_for_macos_need_its_c_library_alone(bundle: Any, platform: str) -> None:
    import lief

    _, made = bundle(platform)
    for path in (made.path / "bin/assay-run", made.path / "lib/libassay_runtime.dylib", kernels(made.path)):
        binary = lief.parse(str(path))
        assert isinstance(binary, lief.MachO.Binary), path
        machine = {"aarch64": "ARM64", "x86_64": "X86_64"}[platform.partition("-")[2]]
        assert binary.header.cpu_type.name == machine
        needed = {library.name for library in binary.libraries} - {f"@rpath/{path.name}"}
        assert needed == {"/usr/lib/libSystem.B.dylib"}, path
        assert next(iter(binary.build_version.minos)) == 11
        # Apple's own CPUs run nothing without a signature.
        assert binary.has_code_signature or machine != "ARM64"
    # A binary of lief has to outlive what is read of it.
    binary = lief.parse(str(kernels(made.path)))
    exported = {symbol.name for symbol in binary.exported_symbols}
    assert "___TVMBackendParallelLaunch" in exported
    assert sum(name.startswith("___tvm_ffi_") for name in exported) >= 3
    library = lief.parse(str(made.path / "lib/libassay_runtime.dylib"))
    assert {"_assay_open", "_assay_run", "_assay_close"} <= {each.name for each in library.exported_symbols}


def test_files_for_windows_need_its_own_libraries_alone(bundle: Any) -> None:
    import lief

    _, made = bundle("windows-x86_64")
    for path in (made.path / "bin/assay-run.exe", made.path / "lib/assay_runtime.dll", kernels(made.path)):
        binary = lief.parse(str(path))
        assert isinstance(binary, lief.PE.Binary), path
        assert binary.header.machine == lief.PE.Header.MACHINE_TYPES.AMD64
        needed = {library.name.lower() for library in binary.imports}
        assert needed, path
        assert all(name.startswith(WINDOWS) for name in needed), needed
    # A binary of lief has to outlive what is read of it.
    binary = lief.parse(str(kernels(made.path)))
    exported = {entry.name for entry in binary.get_export().entries}
    assert "__TVMBackendParallelLaunch" in exported
    assert sum(name.startswith("__tvm_ffi_") for name in exported) >= 3
    library = lief.parse(str(made.path / "lib/assay_runtime.dll"))
    assert {"assay_open", "assay_run", "assay_close"} <= {each.name for each in library.get_export().entries}
    assert (made.path / "lib/assay_runtime.lib").is_file()


@pytest.mark.parametrize("platform", ["macos-aarch64", "macos-x86_64"])
def test_what_never_ran_is_called_so(
    bundle: Any, platform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, made = bundle(platform)
    assert made.executed is Execution.NEVER
    (level,) = open_artifact(made.path / "model").manifest.levels
    assert level.executed is Execution.NEVER
    assert "never executed" in (level.verification.note or "")
    assert "Its code was compiled and never executed." in (made.path / "README.txt").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["bundle", str(artifact), "--platform", platform, "-o", str(tmp_path / "again")])
    assert ended.value.code == 0
    assert "was compiled and never executed" in " ".join(capsys.readouterr().err.split())


def test_the_same_bytes_every_time(bundle: Any, model_file: Path, tmp_path: Path) -> None:
    for platform in ("macos-aarch64", "windows-x86_64"):
        artifact, _ = bundle(platform)
        again = build_artifact(
            find_model(str(model_file)),
            target=PLATFORMS[platform],
            platform=platform,
            cache=tmp_path / platform,
        )
        assert again.manifest.files == open_artifact(artifact).manifest.files


def test_code_for_windows_runs_under_wine_where_that_is(
    bundle: Any, model_file: Path, tmp_path: Path
) -> None:
    """Without Wine, which is too large for CI, the code counts as never executed."""
    artifact, made = bundle("windows-x86_64")
    emulator = find_user_mode(for_platform(targets()["x86-64-v3"], find_platform("windows-x86_64")))
    if emulator is None:
        assert made.executed is Execution.NEVER
        return
    assert made.executed is Execution.EMULATED
    assert "wine" in (open_artifact(artifact).manifest.levels[0].verification.note or "")
    x = np.random.default_rng(3).standard_normal((9, 768)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    command = [*emulator.command, str(made.path / "bin/assay-run.exe"), ".", str(tmp_path / "x.npy")]
    done = subprocess.run(
        [*command, "--threads", "3", "--output", str(tmp_path)],
        cwd=made.path,
        env={**os.environ, **emulator.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (expected,) = reference_outputs(model_file, [{"x": x}])
    np.testing.assert_allclose(np.load(tmp_path / "0.npy"), expected["y"], rtol=1e-4, atol=1e-6)


def test_levels_for_another_machine_are_verified_under_qemu(
    model_file: Path, cache: Path, tmp_path: Path
) -> None:
    if find_user_mode(targets()["aarch64-neon"]) is None:
        pytest.skip("needs QEMU's user mode, which ci/emulator.sh installs")
    spec = find_model(str(model_file))
    names = ["aarch64-neon", "aarch64-neon-dotprod"]
    path = build_artifact(spec, target=names, cache=cache, output=tmp_path / "artifact").path
    found = verify_again(path, spec, cache=cache)
    assert list(found) == names
    assert all(case.max_absolute_error < 1e-4 for cases in found.values() for case in cases)
    assert list(verify_again(path, spec, level=names[0], cache=cache)) == names[:1]
    # A machine without QEMU had built it.
    artifact = open_artifact(path)
    import msgspec

    levels = tuple(
        msgspec.structs.replace(level, executed=Execution.NEVER) for level in artifact.manifest.levels
    )
    manifest = msgspec.structs.replace(artifact.manifest, levels=levels)
    write_artifact(path, manifest, {name: artifact.read(name) for name in manifest.files})
    assert list(verify_emulated(path, spec, timeout=600, cache=cache)) == names
    after = open_artifact(path).manifest
    assert [level.executed for level in after.levels] == [Execution.EMULATED] * 2
    assert "qemu-aarch64" in (after.levels[1].verification.note or "")
