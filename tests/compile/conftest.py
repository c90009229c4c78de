"""What the tests of compile/ share: ONNX models made by hand, and one build cache."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.targets import targets
from assay.compile.tvm_import import import_tvm
from assay.errors import CpuFeatureError
from assay.runtime.cpu import check_features


@pytest.fixture(scope="session")
def tvm() -> Any:
    """TVM, imported without torch: seconds, once, and only where a test needs it."""
    return import_tvm()


@pytest.fixture(scope="session")
def needs_avx2() -> None:
    try:
        check_features(targets()["x86-64-v3"].features)
    except CpuFeatureError:
        pytest.skip("needs AVX2 hardware")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build cache that the tests of one session share; a test that damages it makes its own."""
    return tmp_path_factory.mktemp("cache")


MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Make a model: nodes, inputs and outputs as {name: shape} or {name: (shape, dtype)}, and weights."""

    def declare(name: str, what: Any) -> onnx.ValueInfoProto:
        shape, dtype = what if isinstance(what, tuple) else (what, "float32")
        return onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
        )

    def make(
        nodes: Sequence[onnx.NodeProto],
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        weights: Mapping[str, Any] | None = None,
        opset: int = 18,
    ) -> onnx.ModelProto:
        graph = onnx.helper.make_graph(
            list(nodes),
            "test",
            [declare(name, what) for name, what in inputs.items()],
            [declare(name, what) for name, what in outputs.items()],
            [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in (weights or {}).items()],
        )
        return onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
        )

    return make


@pytest.fixture(scope="session")
def perceptron(make_model: MakeModel) -> onnx.ModelProto:
    """``y = relu(x @ w + b) @ v`` with x [batch, 20], and ``z``, the class of each row, as int64."""
    generator = np.random.default_rng(0)
    node = onnx.helper.make_node
    return make_model(
        [
            node("MatMul", ["x", "w"], ["product"], name="first"),
            node("Add", ["product", "b"], ["sum"], name="bias"),
            node("Relu", ["sum"], ["hidden"], name="activation"),
            node("MatMul", ["hidden", "v"], ["y"], name="second"),
            node("ArgMax", ["y"], ["z"], name="class", axis=1, keepdims=0),
        ],
        {"x": ["batch", 20]},
        {"y": ["batch", 7], "z": (["batch"], "int64")},
        {
            "w": generator.standard_normal((20, 24)).astype(np.float32),
            "b": generator.standard_normal(24).astype(np.float32),
            "v": generator.standard_normal((24, 7)).astype(np.float32),
        },
    )


@pytest.fixture
def perceptron_file(perceptron: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "perceptron.onnx"
    onnx.save_model(perceptron, path)
    return path


Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def run_compiled(tvm: Any, needs_avx2: None) -> Compare:
    """Import, lower and run a model in this process: outputs by name for the inputs in graph order."""
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    def run(model: onnx.ModelProto, inputs: Mapping[str, Any], *, profile: str = "release") -> dict[str, Any]:
        dims = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
        lowered = lower(
            import_onnx(model),
            target=targets()["x86-64-v3"],
            profile=profiles()[profile],
            sizes=dict.fromkeys(dims, 4),
            maxima=dict.fromkeys(dims, 64),
        )
        machine = tvm.relax.VirtualMachine(lowered.executable, tvm.cpu())
        weights = tuple(tvm.runtime.tensor(array) for array in lowered.weights.values())
        arguments = [tvm.runtime.tensor(np.asarray(array, order="C")) for array in inputs.values()]
        results = machine["main"](*arguments, *([weights] if weights else []))
        names = [output.name for output in model.graph.output]
        arrays = [result.numpy() for result in ([results] if len(names) == 1 else results)]
        return dict(zip(names, arrays, strict=True))

    return run


@pytest.fixture
def agree(run_compiled: Compare) -> Callable[..., None]:
    """Compare a compiled model with ONNX Runtime."""
    from assay.compile.verify import reference_outputs

    def check(model: onnx.ModelProto, inputs: Mapping[str, Any], **options: Any) -> None:
        onnx.checker.check_model(model)
        (expected,) = reference_outputs(model.SerializeToString(), [inputs])
        actual = run_compiled(model, inputs, **options)
        for name, wanted in expected.items():
            assert actual[name].dtype == wanted.dtype
            assert actual[name].shape == wanted.shape
            np.testing.assert_allclose(actual[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)

    return check


@pytest.fixture
def element_types(make_model: MakeModel) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Copies of tensors of most dtypes, and casts of floats to them; with inputs."""
    dtypes = ["float64", "int8", "uint8", "int32", "int64", "bool"]
    nodes, inputs, outputs = [], {"b": [3, 5]}, {}
    floats = np.random.default_rng(8).standard_normal((3, 5), dtype=np.float32)
    arrays: dict[str, Any] = {"b": np.abs(floats) * 3}
    for dtype in dtypes:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        copied = onnx.helper.make_node("Concat", [f"x_{dtype}", f"x_{dtype}"], [f"y_{dtype}"], axis=0)
        nodes += [copied, onnx.helper.make_node("Cast", ["b"], [f"z_{dtype}"], to=kind)]
        inputs[f"x_{dtype}"] = ([3, 5], dtype)
        outputs |= {f"y_{dtype}": ([6, 5], dtype), f"z_{dtype}": ([3, 5], dtype)}
        arrays[f"x_{dtype}"] = np.arange(15).reshape(3, 5).astype(dtype)
    return make_model(nodes, inputs, outputs), arrays


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve a folder as it is; gives its address."""
    opened = []

    def start(folder: Path) -> str:
        handler = functools.partial(_Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        opened.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server, thread in opened:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def open_browser(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open Chromium without a window, with further flags."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromium-driver, which ci/emulator.sh installs")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    opened = []

    def start(*flags: str) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (
            "headless", "no-sandbox", "disable-quic", "no-first-run", "disable-background-networking",
            "disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'profile'}", *flags,
        ):  # fmt: skip
            options.add_argument(f"--{flag}")
        opened.append(webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)))
        return opened[-1]

    yield start
    for each in opened:
        each.quit()
