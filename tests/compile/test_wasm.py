"""Builds for WebAssembly, run in wasmtime, in Node.js and in Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.emit_wasm import link_wasm
from assay.compile.verify import reference_outputs
from assay.errors import UnsupportedOperatorError
from assay.models.registry import find_model
from assay.runtime import load
from assay.runtime.drivers import wasm_module
from assay.runtime.manifest import Execution

TARGET = "wasm32-simd"
node_ = onnx.helper.make_node


@pytest.fixture(scope="session")
def network(make_model: Any) -> onnx.ModelProto:
    """A convolution, a pooling, a matrix product and a softmax over [batch, 3, 17, 17], and the class."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((16, 3, 3, 3)).astype(np.float32) / 5,
        "b": generator.standard_normal(16).astype(np.float32),
        "m": generator.standard_normal((16, 75)).astype(np.float32) / 4,
    }
    nodes = [
        node_("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        node_("Gelu", ["c"], ["g"], approximate="none"),
        node_("GlobalAveragePool", ["g"], ["p"]),
        node_("Flatten", ["p"], ["f"]),
        node_("MatMul", ["f", "m"], ["l"]),
        node_("Softmax", ["l"], ["y"], axis=1),
        node_("ArgMax", ["y"], ["z"], axis=1, keepdims=0),
    ]
    model: onnx.ModelProto = make_model(
        nodes, {"x": ["batch", 3, 17, 17]}, {"y": ["batch", 75], "z": (["batch"], "int64")}, weights, opset=20
    )
    return model


@pytest.fixture(scope="session")
def artifact(
    tvm: Any, network: onnx.ModelProto, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return build(network, cache, tmp_path_factory.mktemp("wasm"))


def build(model: onnx.ModelProto, cache: Path, folder: Path, target: str = TARGET, **options: Any) -> Path:
    onnx.save(model, folder / "model.onnx")
    spec = find_model(str(folder / "model.onnx"))
    return build_artifact(spec, target=target, cache=cache, output=folder / "artifact", **options).path


def run_in_node(node: Path, artifact: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of the artifact's own loader."""
    given = {
        name: {"dtype": str(array.dtype), "shape": array.shape, "data": array.ravel().tolist()}
        for name, array in inputs.items()
    }
    script = Path(__file__).with_name("run_artifact.mjs")
    done = subprocess.run(
        [str(node), str(script), str(artifact)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: np.array(value["data"]).astype(value["dtype"]).reshape(value["shape"])
        for name, value in json.loads(done.stdout).items()
    }


def images(count: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(count).standard_normal((count, 3, 17, 17)).astype(np.float32)}


def test_build_is_executed_and_compared(artifact: Path) -> None:
    manifest = load(artifact).manifest
    level = manifest.levels[0]
    assert level.executed is Execution.EMULATED
    assert str(wasm_module.wasm_engine()) in str(level.verification.note)
    assert len(level.verification.cases) >= 4
    assert level.unscheduled_kernels == ()
    assert level.entry.library == "lib/model.wasm"
    assert manifest.tvm_runtime is None


@pytest.mark.parametrize("count", [1, 5])
def test_outputs_are_those_of_onnx_runtime(
    artifact: Path, network: onnx.ModelProto, node: Path, count: int
) -> None:
    given = images(count)
    expected = reference_outputs(network.SerializeToString(), [given])[0]
    for outputs in (load(artifact).run(given), run_in_node(node, artifact, given)):
        np.testing.assert_allclose(outputs["y"], expected["y"], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(outputs["z"], expected["z"])
        assert outputs["z"].dtype == np.int64


def test_module_needs_nothing_but_what_hosts_have(artifact: Path) -> None:
    import wasmtime

    module = wasmtime.Module.from_file(wasmtime.Engine(), str(artifact / "lib/model.wasm"))
    assert {item.name for item in module.imports} <= set(wasm_module.IMPORTED)


def test_function_that_no_host_has_is_refused(tmp_path: Path) -> None:
    source, compiled = tmp_path / "a.ll", tmp_path / "a.o"
    source.write_text(
        'target triple = "wasm32-unknown-unknown"\ndeclare i32 @launch_missiles()\n'
        "define i32 @f() {\n  %r = call i32 @launch_missiles()\n  ret i32 %r\n}\n"
    )
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", "-c"]
    subprocess.run([*zig, str(source), "-o", str(compiled)], check=True, capture_output=True)
    with pytest.raises(UnsupportedOperatorError, match="WebAssembly has no launch_missiles"):
        link_wasm([compiled], ["f"], tmp_path / "a.wasm")
    assert not (tmp_path / "a.imports").exists()


@pytest.mark.slow
def test_relaxed_simd(network: onnx.ModelProto, cache: Path, tmp_path: Path, node: Path) -> None:
    path = build(network, cache, tmp_path, target="wasm32-relaxed-simd,wasm32-simd")
    levels = load(path).manifest.levels
    assert [level.target.name for level in levels] == [TARGET, "wasm32-relaxed-simd"]
    assert all(level.executed is Execution.EMULATED for level in levels)
    given = images(3)
    expected = reference_outputs(network.SerializeToString(), [given])[0]
    np.testing.assert_allclose(run_in_node(node, path, given)["y"], expected["y"], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8", "int4", "f16"])
def test_schemes(make_model: Any, cache: Path, tmp_path: Path, node: Path, scheme: str) -> None:
    generator = np.random.default_rng(1)
    weights = {
        "w": generator.standard_normal((256, 384)).astype(np.float32) / 16,
        "v": generator.standard_normal((384, 128)).astype(np.float32) / 20,
    }
    nodes = [
        node_("MatMul", ["x", "w"], ["h"]),
        node_("Relu", ["h"], ["r"]),
        node_("MatMul", ["r", "v"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["batch", 256]}, {"y": ["batch", 128]}, weights)
    path = build(model, cache, tmp_path, scheme=scheme)
    loaded = load(path)
    assert loaded.manifest.scheme == scheme
    assert loaded.level.executed is Execution.EMULATED
    for count in (1, 9):
        given = {"x": generator.standard_normal((count, 256)).astype(np.float32)}
        ours = loaded.run(given)["y"]
        exact = np.maximum(given["x"] @ weights["w"], 0) @ weights["v"]
        assert np.abs(ours - exact).max() < 0.2 * np.abs(exact).max()
        # V8 and wasmtime compute the same.
        np.testing.assert_allclose(run_in_node(node, path, given)["y"], ours, rtol=0, atol=1e-5)


@pytest.fixture
def browser(open_browser: Any) -> Any:
    return open_browser("disable-gpu")


@pytest.mark.slow
def test_page_in_chromium_shows_the_result_and_the_time(artifact: Path, serve: Any, browser: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(serve(artifact))
    WebDriverWait(browser, 60).until(lambda each: each.execute_script("return 'result' in globalThis"))
    assert browser.find_element("id", "error").text == ""
    assert browser.find_element("id", "name").text == "model"
    status = browser.find_element("id", "status").text
    took = re.search(r"a run takes ([\d.]+) ms", status)
    assert took is not None
    assert float(took[1]) > 0
    # The page's own inputs: a sawtooth.
    given = {"x": (np.arange(3 * 17 * 17) % 256 / 256).astype(np.float32).reshape(1, 3, 17, 17)}
    expected = load(artifact).run(given)
    shown = browser.execute_script("return [...result.outputs.y.data]")
    np.testing.assert_allclose(np.array(shown), expected["y"][0], rtol=0, atol=1e-6)
    assert f"{expected['y'][0, 0]:.4g}"[:4] in browser.find_element("id", "outputs").text
    assert browser.execute_script("return result.outputs.z.data[0].toString()") == str(expected["z"][0])


@pytest.mark.slow
def test_page_says_what_is_wrong(artifact: Path, serve: Any, browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    damaged = tmp_path / "damaged"
    shutil.copytree(artifact, damaged)
    (damaged / "lib/model.plan.json").write_text("{}")
    browser.get(serve(damaged))
    WebDriverWait(browser, 60).until(lambda each: each.execute_script("return 'result' in globalThis"))
    assert "model.plan.json has 2 bytes" in browser.find_element("id", "error").text
