from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import make_node

from assay.errors import ExternalDataError, InterfaceError, ModelError, StorageError
from assay.models.export import CanonicalModel, canonical, export_canonical, weights
from assay.models.export.interface import OutputSpec
from assay.models.inputs import make_inputs, verification_sizes
from assay.models.providers import OnnxFile
from assay.models.registry import find_model
from assay.models.spec import DType, InputSpec, ModelSpec, Weights

MakeModel = Callable[..., onnx.ModelProto]


def _run(path: Path, inputs: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


@pytest.fixture
def export(tmp_path: Path) -> Callable[[onnx.ModelProto], CanonicalModel]:
    """Save a model, export it, and check that both compute the same at every verification size."""

    def run(model: onnx.ModelProto) -> CanonicalModel:
        path = tmp_path / "source.onnx"
        onnx.save_model(model, path)
        spec = find_model(str(path))
        exported = export_canonical(spec, tmp_path / "out")
        for sizes in verification_sizes(exported.spec):
            inputs = make_inputs(exported.spec, sizes)
            for wanted, found in zip(_run(path, inputs), _run(exported.path, inputs), strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        return exported

    return run


def _nodes(exported: CanonicalModel) -> list[str]:
    return [node.op_type for node in onnx.load_model(exported.path).graph.node]


def test_interface_and_digests_are_recorded(linear_file: Path, tmp_path: Path) -> None:
    exported = export_canonical(find_model(str(linear_file)), tmp_path / "out")
    content = linear_file.read_bytes()
    assert exported.source_digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert exported.digest == f"sha256:{hashlib.sha256(exported.path.read_bytes()).hexdigest()}"
    assert exported.outputs == (OutputSpec(name="y", dtype=DType.FLOAT32, shape=("N", 3)),)
    assert [item.name for item in exported.path.parent.iterdir()] == [exported.path.name]


def test_names_of_inputs_and_outputs_are_kept(export: Any, make_model: MakeModel) -> None:
    nodes = [
        make_node("Identity", ["in:0"], ["a"]),
        make_node("Dropout", ["a"], ["b"]),
        make_node("Relu", ["b"], ["c"]),
        make_node("Identity", ["c"], ["out:0"]),
    ]
    exported = export(make_model(nodes, {"in:0": ["N", 2]}, {"out:0": ["N", 2]}))
    assert _nodes(exported) == ["Relu"]
    assert [spec.name for spec in exported.spec.inputs] == ["in:0"]
    assert [output.name for output in exported.outputs] == ["out:0"]


def test_constants_in_every_form_become_initializers(export: Any, make_model: MakeModel) -> None:
    nodes = [
        make_node("Constant", [], ["scale"], value_float=2.0),
        make_node("Constant", [], ["offsets"], value_floats=[1.0, 2.0]),
        make_node("Constant", [], ["axes"], value_ints=[0]),
        make_node("Mul", ["x", "scale"], ["m"]),
        make_node("Add", ["m", "offsets"], ["s"]),
        make_node("Unsqueeze", ["s", "axes"], ["y"]),
    ]
    exported = export(make_model(nodes, {"x": [3, 2]}, {"y": [1, 3, 2]}))
    assert "Constant" not in _nodes(exported)


def test_shape_arithmetic_on_fixed_shapes_is_folded(export: Any, make_model: MakeModel) -> None:
    nodes = [
        make_node("Shape", ["x"], ["shape"]),
        make_node("Gather", ["shape", "zero"], ["rows"], axis=0),
        make_node("Unsqueeze", ["rows", "first"], ["rows1"]),
        make_node("Concat", ["rows1", "rest"], ["target"], axis=0),
        make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "first": np.array([0]), "rest": np.array([-1])}
    exported = export(make_model(nodes, {"x": [2, 3, 4]}, {"y": [2, 12]}, constants))
    assert _nodes(exported) == ["Reshape"]


def test_normalisation_is_folded_into_the_convolution(export: Any, make_model: MakeModel) -> None:
    generator = np.random.default_rng(0)
    constants = {"w": generator.standard_normal((4, 3, 3, 3)).astype(np.float32)} | {
        name: generator.uniform(0.5, 2, 4).astype(np.float32) for name in ("g", "b", "m", "v")
    }
    nodes = [
        make_node("Conv", ["x", "w"], ["c"]),
        make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"]),
    ]
    assert _nodes(export(make_model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 6, 6]}, constants))) == ["Conv"]


def test_unused_nodes_weights_and_documentation_leave_no_trace(
    linear: onnx.ModelProto, export: Any, tmp_path: Path
) -> None:
    first = export(linear)
    linear.graph.node.append(make_node("Exp", ["x"], ["unused"], name="unused"))
    linear.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(9, np.float32), "unread"))
    linear.graph.node[0].doc_string = "File /home/somebody/model.py"
    linear.producer_name, linear.producer_version, linear.doc_string = "exporter", "9", "text"
    onnx.helper.set_model_props(linear, {"when": "today"})
    linear.graph.value_info.append(onnx.helper.make_tensor_value_info("product", 1, ["N", 3]))
    linear.graph.initializer.reverse()
    second = export(linear)
    assert second.source_digest != first.source_digest
    assert second.digest == first.digest


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    spec = find_model("light-shufflenet")
    first = export_canonical(spec, tmp_path / "first")
    second = export_canonical(spec, tmp_path / "second")
    assert (first.digest, first.source_digest) == (second.digest, second.source_digest)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_branch_on_a_constant_is_chosen(export: Any, make_model: MakeModel) -> None:
    def branch(operator: str) -> onnx.GraphProto:
        result = onnx.helper.make_tensor_value_info(operator, onnx.TensorProto.FLOAT, [2])
        return onnx.helper.make_graph([make_node(operator, ["x"], [operator])], operator, [], [result])

    node = make_node("If", ["yes"], ["y"], then_branch=branch("Exp"), else_branch=branch("Neg"))
    assert _nodes(export(make_model([node], {"x": [2]}, {"y": [2]}, {"yes": np.True_}))) == ["Exp"]


def test_initializers_that_are_inputs_too_are_constants(linear: onnx.ModelProto, export: Any) -> None:
    linear.ir_version = 3
    del linear.opset_import[:]
    linear.opset_import.append(onnx.helper.make_opsetid("", 8))
    for tensor in linear.graph.initializer:
        linear.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    exported = export(linear)
    assert [spec.name for spec in exported.spec.inputs] == ["x"]


def test_inputs_are_in_the_order_of_the_graph(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model([make_node("Sub", ["a", "b"], ["y"])], {"b": [2], "a": [2]}, {"y": [2]})
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path)
    inputs = tuple(InputSpec(name=name, dtype=DType.FLOAT32, shape=(2,)) for name in ("a", "b"))
    spec = ModelSpec(
        name="swapped",
        description="",
        provider=OnnxFile(path=path),
        inputs=inputs,
        weights=Weights.RANDOM,
        licence="",
    )
    assert [item.name for item in export_canonical(spec, tmp_path).spec.inputs] == ["b", "a"]


def test_large_weights_lie_beside_the_graph(
    linear: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Any
) -> None:
    monkeypatch.setattr(weights, "INLINE_BYTES", 1000)
    wide = np.random.default_rng(0).standard_normal((3, 2000)).astype(np.float32)
    linear.graph.initializer.append(onnx.numpy_helper.from_array(wide, "wide"))
    linear.graph.node.append(make_node("MatMul", ["y", "wide"], ["z"]))
    linear.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("z", 1, ["N", 2000]))
    exported = export(linear)
    assert {item.name for item in exported.path.parent.iterdir()} == {"canonical.onnx", "canonical.bin"}
    again = export_canonical(exported.spec, tmp_path / "again")
    assert again.digest == exported.digest


def test_an_older_export_is_replaced(linear_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "canonical.onnx").write_bytes(b"old")
    exported = export_canonical(find_model(str(linear_file)), folder)
    onnx.checker.check_model(exported.path)


def _damaged(linear: onnx.ModelProto, how: str) -> onnx.ModelProto:
    if how == "unknown input":
        linear.graph.node[0].input[0] = "nothing"
    elif how == "unknown operator":
        linear.graph.node[0].op_type = "Mathmul"
    elif how == "cycle":
        linear.graph.node[0].input[0] = "y"
    elif how == "wrong weight size":
        linear.graph.initializer[0].raw_data = b"1234"
    elif how == "shapes that do not fit":
        linear.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.ones(5, np.float32), "b"))
    return linear


@pytest.mark.parametrize(
    "how", ["unknown input", "unknown operator", "cycle", "wrong weight size", "shapes that do not fit"]
)
def test_an_invalid_model_gives_one_error_and_no_file(
    how: str, linear: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(_damaged(linear, how).SerializeToString())
    with pytest.raises(ModelError) as caught:
        export_canonical(find_model(str(path)), tmp_path / "out")
    assert "\n" not in caught.value.message
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_external_data_leaves_nothing_behind(linear: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(linear, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ExternalDataError):
        export_canonical(find_model(str(path)), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_specification_that_disagrees_is_refused(linear_file: Path, tmp_path: Path) -> None:
    spec = ModelSpec(
        name="wrong",
        description="",
        provider=OnnxFile(path=linear_file),
        inputs=(InputSpec(name="x", dtype=DType.FLOAT32, shape=(1, 5)),),
        weights=Weights.RANDOM,
        licence="",
    )
    with pytest.raises(InterfaceError, match=r"is 4, not 5"):
        export_canonical(spec, tmp_path / "out")


def test_a_folder_that_is_a_file_is_a_storage_error(linear_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StorageError):
        export_canonical(find_model(str(linear_file)), tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a file system that enforces permissions")
def test_a_folder_without_permission_is_a_storage_error(linear_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(StorageError):
        export_canonical(find_model(str(linear_file)), tmp_path / "out")


def test_a_full_disk_is_a_storage_error_that_leaves_nothing(
    linear_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(canonical, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        export_canonical(find_model(str(linear_file)), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(linear_file: Path, tmp_path: Path) -> None:
    class Interrupting:
        @contextlib.contextmanager
        def step(self, name: str) -> Iterator[None]:
            if name == "write canonical ONNX":
                raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        export_canonical(find_model(str(linear_file)), tmp_path / "out", progress=Interrupting())
    assert list((tmp_path / "out").iterdir()) == []


def test_steps_are_shown(linear_file: Path, tmp_path: Path) -> None:
    shown: list[str] = []

    class Collecting:
        @contextlib.contextmanager
        def step(self, name: str) -> Iterator[None]:
            shown.append(name)
            yield

    export_canonical(find_model(str(linear_file)), tmp_path, progress=Collecting())
    assert shown == ["get linear", "load ONNX", "check ONNX", "fold and simplify", "write canonical ONNX"]
