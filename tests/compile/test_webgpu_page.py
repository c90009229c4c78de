"""Builds for WebGPU, run by the JavaScript loader in Chromium on SwiftShader, a device that the CPU plays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.verify import reference_outputs
from assay.models.registry import find_model

pytestmark = pytest.mark.slow
# What gives Chromium on Linux a device of WebGPU where there is no GPU.
FLAGS = ("enable-unsafe-webgpu", "use-webgpu-adapter=swiftshader", "enable-features=Vulkan")
node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture
def network(make_model: MakeModel) -> onnx.ModelProto:
    """Embeddings of int64 tokens, a convolution, a product, a softmax; and classes as int64 and bool."""
    generator = np.random.default_rng(0)
    weights = {
        "table": generator.standard_normal((50, 24)).astype(np.float32),
        "f": generator.standard_normal((24, 24, 3)).astype(np.float32) / 8,
        "w": generator.standard_normal((24, 10)).astype(np.float32) / 4,
    }
    nodes = [
        node("Gather", ["table", "tokens"], ["e"]),
        node("Transpose", ["e"], ["t"], perm=[0, 2, 1]),
        node("Conv", ["t", "f"], ["c"], pads=[1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Transpose", ["r"], ["s"], perm=[0, 2, 1]),
        node("MatMul", ["s", "w"], ["p"]),
        node("Add", ["p", "bias"], ["q"]),
        node("Softmax", ["q"], ["y"], axis=2),
        node("ArgMax", ["q"], ["z"], axis=2, keepdims=0),
        node("Greater", ["q", "bias"], ["b"]),
    ]
    inputs = {"tokens": ([1, "length"], "int64"), "bias": [10]}
    outputs = {"y": [1, "length", 10], "z": ([1, "length"], "int64"), "b": ([1, "length", 10], "bool")}
    return make_model(nodes, inputs, outputs, weights)


def given(length: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(length)
    return {
        "tokens": generator.integers(0, 50, (1, length)),
        "bias": generator.standard_normal(10).astype(np.float32),
    }


def wait_for_result(browser: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 120).until(lambda each: each.execute_script("return 'result' in globalThis"))


def run_in_page(browser: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The outputs of the page's model, as NumPy's arrays; an error as its message."""
    described = {
        name: {"wide": array.dtype == np.int64, "shape": array.shape, "data": array.ravel().tolist()}
        for name, array in inputs.items()
    }
    script = """
        const [given, done] = arguments;
        const tensor = ({ wide, shape, data }) =>
          ({ shape, data: wide ? BigInt64Array.from(data, BigInt) : Float32Array.from(data) });
        const all = Object.entries(JSON.parse(given));
        const inputs = Object.fromEntries(all.map(([name, each]) => [name, tensor(each)]));
        model.run(inputs).then(
          (outputs) => done(Object.fromEntries(Object.entries(outputs).map(([name, { dtype, shape, data }]) =>
            [name, { dtype, shape, kind: data.constructor.name, data: Array.from(data, Number) }]))),
          (error) => done({ error: `${error.name}: ${error.message}` }));
    """
    found = browser.execute_async_script(script, json.dumps(described))
    if "error" in found:
        return dict(found)
    kinds = {"float32": "Float32Array", "int64": "BigInt64Array", "bool": "Uint8Array"}
    assert {each["dtype"]: each["kind"] for each in found.values()}.items() <= kinds.items()
    return {
        name: np.array(each["data"]).astype(each["dtype"]).reshape(each["shape"])
        for name, each in found.items()
    }


def test_outputs_are_those_of_onnx_runtime_and_the_page_shows_the_time(
    network: onnx.ModelProto, cache: Path, tmp_path: Path, serve: Any, open_browser: Any
) -> None:
    onnx.save(network, tmp_path / "network.onnx")
    spec = find_model(str(tmp_path / "network.onnx"))
    path = build_artifact(spec, target="webgpu,wasm32-simd", cache=cache, output=tmp_path / "artifact").path
    browser = open_browser(*FLAGS)
    browser.set_script_timeout(120)
    browser.get(serve(path))
    wait_for_result(browser)
    assert browser.find_element("id", "error").text == ""
    took = re.search(
        r"WebGPU \(.*swiftshader.*\).* a run takes ([\d.]+) ms", browser.find_element("id", "status").text
    )
    assert took is not None
    assert float(took[1]) > 0
    assert "float32[1, " in browser.find_element("id", "outputs").text
    for length in (7, 33, 7):
        inputs = given(length)
        (expected,) = reference_outputs(network.SerializeToString(), [inputs])
        outputs = run_in_page(browser, inputs)
        np.testing.assert_allclose(outputs["y"], expected["y"], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(outputs["z"], expected["z"])
        assert np.mean(outputs["b"] != expected["b"]) < 0.01  # a sum may be beside a threshold
    tokens = np.array([[1, 1 << 40]])
    refused = run_in_page(browser, {"tokens": tokens, "bias": np.zeros(10, np.float32)})
    assert refused["error"].startswith(
        'InterfaceError: Input "tokens" has integers that do not fit the device'
    )
    refused = run_in_page(browser, {"tokens": tokens})
    assert 'Input "bias" is missing' in refused["error"]
    # The same artifact in WebAssembly.
    browser.get(f"{serve(path)}?device=wasm")
    wait_for_result(browser)
    assert browser.find_element("id", "status").text.startswith("WebAssembly, scheme f32")


def test_page_without_webgpu_says_so(
    perceptron_file: Path, cache: Path, tmp_path: Path, serve: Any, open_browser: Any
) -> None:
    path = build_artifact(
        find_model(str(perceptron_file)), target="webgpu", cache=cache, output=tmp_path / "artifact"
    ).path
    browser = open_browser("disable-gpu", "disable-features=WebGPU")
    browser.get(serve(path))
    wait_for_result(browser)
    assert re.search(r"no WebGPU|finds no device", browser.find_element("id", "error").text)
