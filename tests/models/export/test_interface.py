from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from assay.errors import InterfaceError, ModelError
from assay.models.export.interface import (
    bind_inputs,
    declare_outputs,
    drop_initializer_inputs,
    read_inputs,
    read_outputs,
)
from assay.models.spec import DType, InputSpec, SymbolicDim

MakeModel = Callable[..., onnx.ModelProto]


def _relu(make_model: MakeModel, shape: list[int | str | None], name: str = "x") -> onnx.ModelProto:
    return make_model([onnx.helper.make_node("Relu", [name], ["y"])], {name: shape}, {"y": shape})


def test_fixed_dimensions_are_read_as_they_are(make_model: MakeModel) -> None:
    (found,) = read_inputs(_relu(make_model, [2, 3]).graph)
    assert found == InputSpec(name="x", dtype=DType.FLOAT32, shape=(2, 3))


def test_open_dimensions_become_symbolic(make_model: MakeModel) -> None:
    (found,) = read_inputs(_relu(make_model, ["N", None, 7]).graph)
    assert found.shape == (
        SymbolicDim(name="N", default=1, maximum=64),
        SymbolicDim(name="x_dim1", default=128, maximum=2048),
        7,
    )


def test_height_and_width_get_the_size_of_an_image(make_model: MakeModel) -> None:
    (found,) = read_inputs(_relu(make_model, [1, 3, "H", "W"]).graph)
    assert [(dim.default, dim.minimum) for dim in found.shape[2:] if isinstance(dim, SymbolicDim)] == [
        (224, 32),
        (224, 32),
    ]


def test_names_that_are_no_identifiers_are_changed_and_stay_distinct(make_model: MakeModel) -> None:
    (found,) = read_inputs(_relu(make_model, ["a b", "a-b", "2c"], "in:0").graph)
    assert [dim.name for dim in found.shape if isinstance(dim, SymbolicDim)] == ["a_b", "a_b_", "d_2c"]


def test_one_name_is_one_dimension(make_model: MakeModel) -> None:
    add = onnx.helper.make_node("Add", ["p", "q"], ["y"])
    model = make_model([add], {"p": ["N", "T"], "q": ["N", "T"]}, {"y": ["N", "T"]})
    p, q = read_inputs(model.graph)
    assert p.shape == q.shape


def test_initializers_listed_as_inputs_are_no_inputs(linear: onnx.ModelProto) -> None:
    linear.ir_version = 3
    for tensor in linear.graph.initializer:
        linear.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    assert [spec.name for spec in read_inputs(linear.graph)] == ["x"]
    drop_initializer_inputs(linear)
    assert [value.name for value in linear.graph.input] == ["x"]
    onnx.checker.check_model(linear)


@pytest.mark.parametrize(
    "element", [onnx.TensorProto.STRING, onnx.TensorProto.BFLOAT16, onnx.TensorProto.COMPLEX64]
)
def test_unsupported_element_types_are_named(element: int) -> None:
    value = onnx.helper.make_tensor_value_info("text", element, [1])
    graph = onnx.helper.make_graph([], "test", [value], [])
    with pytest.raises(ModelError, match=r"'text' has the element type"):
        read_inputs(graph)


def test_sequences_are_refused() -> None:
    value = onnx.helper.make_tensor_sequence_value_info("many", onnx.TensorProto.FLOAT, [1])
    with pytest.raises(ModelError):
        read_inputs(onnx.helper.make_graph([], "test", [value], []))


def test_an_unknown_rank_is_refused() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)
    with pytest.raises(ModelError, match=r"'x' declares no shape"):
        read_inputs(onnx.helper.make_graph([], "test", [value], []))


def _spec(*shape: int | SymbolicDim, dtype: DType = DType.FLOAT32, name: str = "x") -> InputSpec:
    return InputSpec(name=name, dtype=dtype, shape=shape)


def test_binding_renames_dimensions_and_carries_them_to_outputs(linear: onnx.ModelProto) -> None:
    bind_inputs(linear.graph, (_spec(SymbolicDim(name="batch", default=1, maximum=8), 4),))
    assert linear.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert read_outputs(linear.graph)[0].shape == ("batch", 3)


def test_binding_to_a_number_fixes_the_outputs_too(linear: onnx.ModelProto) -> None:
    bind_inputs(linear.graph, (_spec(5, 4),))
    assert read_outputs(linear.graph)[0].shape == (5, 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (_spec(1, 5), "Dimension 1 of the input 'x' is 4, not 5"),
        (_spec(4), "has 2 dimensions, not 1"),
        (_spec(1, 4, dtype=DType.INT64), "is float32, not int64"),
        (_spec(1, 4, name="z"), "the specification has z"),
    ],
)
def test_a_specification_that_does_not_fit_is_refused(
    spec: InputSpec, message: str, linear: onnx.ModelProto
) -> None:
    with pytest.raises(InterfaceError, match=message):
        bind_inputs(linear.graph, (spec,))


def test_one_dimension_cannot_have_two_sizes(make_model: MakeModel) -> None:
    add = onnx.helper.make_node("Add", ["p", "q"], ["y"])
    model = make_model([add], {"p": ["N"], "q": ["N"]}, {"y": ["N"]})
    with pytest.raises(InterfaceError, match=r"'N' is bound to both 2 and 3"):
        bind_inputs(model.graph, (_spec(2, name="p"), _spec(3, name="q")))


def test_output_shapes_come_from_inference_where_the_file_is_silent(linear: onnx.ModelProto) -> None:
    del linear.graph.output[0].type.tensor_type.shape.dim[:]
    linear.graph.output[0].type.tensor_type.ClearField("shape")
    declare_outputs(linear.graph, onnx.shape_inference.infer_shapes(linear).graph)
    assert read_outputs(linear.graph)[0].shape == ("N", 3)


def test_unknown_output_dimensions_are_marked(linear: onnx.ModelProto) -> None:
    linear.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    assert read_outputs(linear.graph)[0].shape == ("?", 3)
