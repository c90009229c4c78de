from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.errors import ArtifactError, CapacityError, InterfaceError, MissingDependencyError, UsageError
from assay.runtime import load
from assay.runtime.drivers.wasm_math import MATH
from assay.runtime.drivers.wasm_module import WasmModule, wasm_engine
from assay.runtime.plan import Kernel, Step

pytest.importorskip("wasmtime", reason="needs the wasm extra: pip install -e '.[wasm]'")


def _load_case() -> ModuleType:
    path = Path(__file__).parents[1] / "wasm_case.py"
    spec = importlib.util.spec_from_file_location("wasm_case", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


case = _load_case()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = case.write_case(tmp_path_factory.mktemp("wasm") / "artifact")
    return path


@pytest.fixture
def module(tmp_path: Path) -> WasmModule:
    path = tmp_path / "model.wasm"
    path.write_bytes(case.module_bytes())
    return WasmModule(path)


def inputs(rows: int, count: int) -> dict[str, Any]:
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) - 4
    return {"x": x, "ids": np.arange(count, dtype=np.int64) * 7}


@pytest.mark.parametrize("rows", [1, 5, 40_000])
def test_a_plan_runs(artifact: Path, rows: int) -> None:
    model = load(artifact)
    assert model.level.target.name == "wasm32-simd"
    for count in (4, 1, 9):
        given = inputs(rows, count)
        outputs = model.run(given)
        np.testing.assert_array_equal(outputs["y"], given["x"] * case.SCALES + 1)
        assert outputs["last"].tolist() == [(count - 1) * 7 + 2**40]
        # The plan says that kernels write this input.
        assert given["ids"][0] == -5


def test_outputs_stay_when_the_model_runs_again(artifact: Path) -> None:
    model = load(artifact)
    first = model.run(inputs(2, 4))["y"]
    kept = first.copy()
    model.run({"x": np.full((2, 3), 9, np.float32), "ids": np.zeros(4, np.int64)})
    np.testing.assert_array_equal(first, kept)


def test_inputs_of_any_strides_are_taken(artifact: Path) -> None:
    given = inputs(4, 4)
    strided = np.asfortranarray(given["x"])
    expected = given["x"] * case.SCALES + 1
    np.testing.assert_array_equal(load(artifact).run({**given, "x": strided})["y"], expected)


def test_wrong_inputs_are_refused(artifact: Path) -> None:
    with pytest.raises(InterfaceError, match="dtype float64, expected float32"):
        load(artifact).run({**inputs(2, 4), "x": np.zeros((2, 3))})


def test_more_memory_than_webassembly_addresses_is_refused(artifact: Path) -> None:
    model = load(artifact)
    # Elements that take no memory of their own.
    huge = np.broadcast_to(np.float32(1), (400_000_000, 3))
    with pytest.raises(CapacityError, match="4096 MiB"):
        model.run({"x": huge, "ids": np.zeros(4, np.int64)})
    outputs = model.run(inputs(2, 4))
    np.testing.assert_array_equal(outputs["y"], inputs(2, 4)["x"] * case.SCALES + 1)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [("refuse", "ValueError: too "), ("scale", "ValueError: too bad"), ("stop", "stopped")],
)
def test_errors_of_kernels_are_told(tmp_path: Path, kernel: str, message: str) -> None:
    path = case.write_case(
        tmp_path / "artifact", kernels=(Kernel(name=kernel),), steps=(Step(kernel=0, arguments=(0, 3)),)
    )
    with pytest.raises(ArtifactError, match=message):
        load(path).run(inputs(2, 4))


def test_kernel_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = case.write_case(
        tmp_path / "artifact", kernels=(Kernel(name="other"),), steps=(Step(kernel=0, arguments=(0, 3)),)
    )
    with pytest.raises(ArtifactError, match="no kernel 'other'"):
        load(path).run(inputs(2, 4))


def test_what_is_no_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.wasm"
    path.write_bytes(b"\0asm and then nothing that makes sense")
    with pytest.raises(ArtifactError, match=r"model\.wasm cannot be loaded"):
        WasmModule(path)


def test_imports_that_are_not_known_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.wasm"
    path.write_bytes(case.module_bytes('(module (import "env" "system" (func)))'))
    with pytest.raises(ArtifactError, match="imports 'system'"):
        WasmModule(path)


def test_without_wasmtime_the_extra_is_named(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    with pytest.raises(MissingDependencyError) as raised:
        load(artifact)
    assert "[wasm]" in str(raised.value.hint)


def test_kernels_are_not_timed_one_by_one(artifact: Path) -> None:
    with pytest.raises(UsageError, match="not timed one by one"):
        load(artifact).kernel_times(inputs(2, 4), repeats=1)


def test_addresses_are_aligned_and_kept_apart(module: WasmModule) -> None:
    kept = [module.keep(size) for size in (1, 100_000, 0, 64)]
    allocated = [module.allocate(size) for size in (65, 3)]
    assert all(address % 64 == 0 for address in kept + allocated)
    assert kept[1] + 100_000 <= kept[2] == kept[3]
    assert allocated[0] >= kept[3] + 64
    module.release()
    assert module.allocate(1) == allocated[0]


def test_mathematics_of_c(module: WasmModule) -> None:
    store, exports = module._store, module._exports
    assert exports["erff"](store, 0.5) == pytest.approx(math.erf(0.5), rel=1e-7)
    assert exports["pow"](store, 2.0, 0.5) == math.sqrt(2)
    assert MATH["tanhf"](0.25) == np.float32(math.tanh(0.25))


def test_engine_is_named() -> None:
    assert str(wasm_engine()).startswith("wasmtime ")
