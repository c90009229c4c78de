from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx.helper import make_node

from assay.models.export.strip import remove_unused, strip_provenance

MakeModel = Callable[..., onnx.ModelProto]


def test_provenance_is_dropped_everywhere(linear: onnx.ModelProto) -> None:
    clean = linear.SerializeToString(deterministic=True)
    linear.producer_name = "exporter"
    linear.doc_string = "made at home"
    linear.metadata_props.add(key="user", value="somebody")
    linear.graph.doc_string = "graph"
    linear.graph.input[0].doc_string = "input"
    linear.graph.node[0].doc_string = "node"
    linear.graph.node[0].metadata_props.add(key="stack", value="/home/somebody/model.py")
    linear.graph.initializer[0].doc_string = "weight"
    assert linear.SerializeToString(deterministic=True) != clean
    strip_provenance(linear)
    assert linear.graph.name == "main"
    linear.graph.name = "test"
    assert linear.SerializeToString(deterministic=True) == clean


def test_what_no_output_needs_is_dropped(linear: onnx.ModelProto) -> None:
    linear.graph.node.insert(0, make_node("Exp", ["x"], ["e"]))
    linear.graph.node.insert(1, make_node("MatMul", ["e", "unread"], ["f"]))
    linear.graph.initializer.append(onnx.helper.make_tensor("unread", 1, [1], [1.0]))
    linear.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    remove_unused(linear)
    assert [node.op_type for node in linear.graph.node] == ["MatMul", "Add"]
    assert [tensor.name for tensor in linear.graph.initializer] == ["w", "b"]
    assert [entry.domain for entry in linear.opset_import] == [""]


def test_what_only_a_branch_reads_is_kept(make_model: MakeModel) -> None:
    result = onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [1])
    branch = onnx.helper.make_graph([make_node("Add", ["e", "w"], ["r"])], "branch", [], [result])
    nodes = [
        make_node("Exp", ["x"], ["e"]),
        make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    model = make_model(nodes, {"x": [1], "c": []}, {"y": [1]}, {"w": [1.0]})
    remove_unused(model)
    assert [node.op_type for node in model.graph.node] == ["Exp", "If"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]
