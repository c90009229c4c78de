from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.reference
import pytest

from assay.errors import UnsupportedOperatorError
from assay.models.export.functions import INLINED_OPERATORS, check_operators, inline, needs_inlining

MakeModel = Callable[..., onnx.ModelProto]


def _with_function(make_model: MakeModel) -> onnx.ModelProto:
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("own", 1)]
    body = [onnx.helper.make_node("Add", ["a", "a"], ["b"])]
    model = make_model(
        [onnx.helper.make_node("Twice", ["x"], ["y"], domain="own", name="doubling")],
        {"x": [3]},
        {"y": [3]},
        opset_imports=opsets,
    )
    model.functions.append(onnx.helper.make_function("own", "Twice", ["a"], ["b"], body, opsets[:1]))
    return model


def test_local_functions_are_inlined(make_model: MakeModel) -> None:
    model = _with_function(make_model)
    check_operators(model)
    assert needs_inlining(model)
    inlined = inline(model)
    assert [node.op_type for node in inlined.graph.node] == ["Add"]
    assert not inlined.functions


def test_an_operator_that_nobody_defines_is_named_with_its_node(make_model: MakeModel) -> None:
    model = _with_function(make_model)
    del model.functions[:]
    with pytest.raises(UnsupportedOperatorError, match=r"own::Twice of the node 'doubling'"):
        check_operators(model)


def test_an_unknown_operator_in_a_branch_is_found(make_model: MakeModel) -> None:
    inner = onnx.helper.make_node("Odd", [], ["z"], domain="own")
    branch = onnx.helper.make_graph([inner], "branch", [], [])
    model = make_model(
        [onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)],
        {"x": [1]},
        {"y": [1]},
    )
    with pytest.raises(UnsupportedOperatorError, match=r"own::Odd of the node 'z'"):
        check_operators(model)


def test_operators_that_the_importer_lacks_are_inlined_with_the_same_result(make_model: MakeModel) -> None:
    model = make_model([onnx.helper.make_node("Celu", ["x"], ["y"], alpha=2.0)], {"x": [5]}, {"y": [5]})
    assert needs_inlining(model)
    inlined = inline(model)
    assert not {node.op_type for node in inlined.graph.node} & INLINED_OPERATORS
    values = np.array([-3, -1, 0, 1, 3], np.float32)
    wanted = np.maximum(0, values) + np.minimum(0, 2 * (np.exp(values / 2) - 1))
    found = onnx.reference.ReferenceEvaluator(inlined).run(None, {"x": values})
    np.testing.assert_allclose(found[0], wanted, rtol=1e-6)


def test_a_model_of_plain_operators_is_left_alone(linear: onnx.ModelProto) -> None:
    assert not needs_inlining(linear)
    assert inline(linear) is linear


def test_every_inlined_operator_has_a_function_body() -> None:
    for name in INLINED_OPERATORS:
        schema = onnx.defs.get_schema(name)
        assert schema.has_function or schema.has_context_dependent_function, name
