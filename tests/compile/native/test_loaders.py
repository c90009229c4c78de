"""The loaders of a bundle, executed: Python's on this machine, C++'s on this machine and under QEMU."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.bundle import Bundle, write_bundle
from assay.compile.emulation.user_mode import find_user_mode
from assay.compile.native import find_platform
from assay.compile.native.toolchain import zig_environment
from assay.compile.targets import targets
from assay.compile.verify import reference_outputs
from assay.errors import UsageError
from assay.models.registry import find_model
from assay.runtime.artifact import open_artifact
from assay.runtime.manifest import Execution

pytestmark = pytest.mark.slow
# Debian's package libc6-arm64-cross: what a program for glibc finds on such a machine.
SYSROOT = Path("/usr/aarch64-linux-gnu")


@pytest.fixture(scope="module")
def model_file(perceptron: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "perceptron.onnx"
    onnx.save_model(perceptron, path)
    return path


@pytest.fixture(scope="module")
def bundle(model_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The model for this machine, of two levels."""
    if platform.machine() != "x86_64":
        pytest.skip("needs an x86-64 machine")
    path = build_artifact(
        find_model(str(model_file)), target="x86-64-v2,x86-64-v3", platform="linux-x86_64", cache=cache
    ).path
    manifest = open_artifact(path).manifest
    assert [level.entry.driver for level in manifest.levels] == ["plan-cpu"] * 2
    assert manifest.tvm_runtime is None
    return write_bundle(path, tmp_path_factory.mktemp("bundle") / "device", platform="linux-x86_64")


def run(*command: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_code_for_this_machine_counts_as_executed(bundle: Bundle) -> None:
    assert bundle.executed is Execution.NATIVE
    assert bundle.level == "x86-64-v3"
    assert "compared with ONNX Runtime's on such a machine" in (bundle.path / "README.txt").read_text()


@pytest.mark.parametrize("level", ["", "x86-64-v2", "x86-64-v3"])
def test_python_loader_with_numpy_alone(bundle: Bundle, model_file: Path, tmp_path: Path, level: str) -> None:
    """In a Python that finds NumPy and nothing else that is installed."""
    x = np.random.default_rng(1).standard_normal((5, 20)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import importlib.util, sys\n"
        f"sys.path[:0] = [{str(Path(np.__file__).parents[1])!r}, '.']\n"
        "import numpy as np\nsys.path[0] = '.'\n"
        "assert importlib.util.find_spec('tvm') is None and importlib.util.find_spec('assay') is None\n"
        "from assay_model import Model\n"
        "model = Model(threads=2)\n"
        "assert (model.inputs, model.outputs) == (['x'], ['y', 'z'])\n"
        f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
        "for count in (5, 2, 5):\n"
        "    outputs = model.run({'x': x[:count]})\n"
        "    assert outputs['y'].shape == (count, 7)\n"
        # Not contiguous, and float64: converted.
        "again = model.run({'x': np.asfortranarray(x.astype(np.float64))})\n"
        "np.testing.assert_array_equal(again['y'], outputs['y'])\n"
        f"np.savez({str(tmp_path / 'out.npz')!r}, **outputs)\n"
    )
    done = run(sys.executable, "-I", "-S", "-c", code, folder=bundle.path, ASSAY_LEVEL=level)
    assert done.returncode == 0, done.stderr
    (expected,) = reference_outputs(model_file, [{"x": x}])
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found["z"], expected["z"])
        assert found["z"].dtype == np.int64


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("Model('/nowhere')", "cannot open shared object file"),
        ("Model().run({})", "The model takes x; x is missing."),
        ("Model().run({'x': np.zeros((5, 21))})", "does not fit the model"),
        ("Model().run({'x': np.zeros((1,) * 9)})", "too many dimensions"),
    ],
)
def test_python_loader_says_what_is_wrong(bundle: Bundle, statement: str, message: str) -> None:
    code = (
        f"import numpy as np\nimport sys\nsys.path.insert(0, '.')\nfrom assay_model import Model\n{statement}"
    )
    done = run(sys.executable, "-c", code, folder=bundle.path)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]


def test_a_level_that_is_not_there_is_refused(bundle: Bundle) -> None:
    done = run(bundle.path / "bin/assay-run", ".", folder=bundle.path, ASSAY_LEVEL="x86-64-v9")
    assert done.returncode == 1
    assert "no level x86-64-v9 for this machine, which ASSAY_LEVEL asks for" in done.stderr


def test_program_runs_on_this_machine(bundle: Bundle, model_file: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(2).standard_normal((3, 20)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for level in ("x86-64-v2", "x86-64-v3"):
        command = (bundle.path / "bin/assay-run", ".", tmp_path / "x.npy", "--output", tmp_path)
        done = run(*command, folder=bundle.path, ASSAY_LEVEL=level)
        assert done.returncode == 0, done.stderr
        (expected,) = reference_outputs(model_file, [{"x": x}])
        np.testing.assert_allclose(np.load(tmp_path / "0.npy"), expected["y"], rtol=1e-4, atol=1e-4)


def compiled_example(bundle: Bundle, output: Path) -> Path:
    """``example.cc`` of the bundle, compiled as its first lines say, by zig's C++ compiler."""
    triple = find_platform(bundle.platform).library_triple
    command = [sys.executable, "-m", "ziglang", "c++", "-target", triple, "-std=c++17", "-Wall", "-Werror"]
    command += ["-Iinclude", "example.cc", "-Llib", "-lassay_runtime", "-Wl,-rpath,$ORIGIN/lib", "-o"]
    done = subprocess.run(
        [*command, str(output)],
        cwd=bundle.path,
        env=zig_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output


def check_example(printed: str, expected: Mapping[str, np.ndarray]) -> None:
    first, second = printed.splitlines()
    shown, _, values = first.partition(" ]")
    assert shown == "y float32 [ 1 7"
    np.testing.assert_allclose(
        [float(each) for each in values.split()], expected["y"][0], rtol=1e-4, atol=1e-4
    )
    assert second == "z int64 [ 1 ]"


def test_cpp_loader_runs_on_this_machine(bundle: Bundle, model_file: Path) -> None:
    example = compiled_example(bundle, bundle.path / "example")
    done = run(example, folder=bundle.path)
    assert done.returncode == 0, done.stderr
    check_example(done.stdout, reference_outputs(model_file, [{"x": np.zeros((1, 20), np.float32)}])[0])
    wrong = run(example, "/nowhere", folder=bundle.path)
    assert wrong.returncode == 1
    assert "/nowhere/model/manifest.json cannot be opened" in wrong.stderr


def test_cpp_loader_runs_under_qemu(model_file: Path, cache: Path, tmp_path: Path) -> None:
    emulator = find_user_mode(targets()["aarch64-neon"])
    if emulator is None or not SYSROOT.is_dir():
        pytest.skip("needs qemu-user and libc6-arm64-cross, which ci/emulator.sh installs")
    path = build_artifact(find_model(str(model_file)), target="aarch64-neon", cache=cache).path
    bundle = write_bundle(path, tmp_path / "device", platform="linux-aarch64")
    example = compiled_example(bundle, bundle.path / "example")
    done = run(*emulator.command, "-L", SYSROOT, example, folder=bundle.path)
    assert done.returncode == 0, done.stderr
    check_example(done.stdout, reference_outputs(model_file, [{"x": np.zeros((1, 20), np.float32)}])[0])


def test_platforms_that_a_target_is_not_for(model_file: Path, cache: Path) -> None:
    spec = find_model(str(model_file))
    for target in ("aarch64-neon", "wasm32-simd", "opencl"):
        with pytest.raises(UsageError, match=f"{target} is not for windows-x86_64"):
            build_artifact(spec, target=target, platform="windows-x86_64", cache=cache)
    with pytest.raises(UsageError, match="not for a platform"):
        build_artifact(spec, target="x86-64-v3", profile="pgo", platform="linux-x86_64", cache=cache)
