from __future__ import annotations

from types import ModuleType
from typing import Any

import onnx
import pytest

from assay.compile.decoders.interface import DecoderOptions, decoder_info, options_of
from assay.compile.decoders.paged_graph import to_paged
from assay.errors import ModelError


def _paged(model: Any, **options: Any) -> onnx.GraphProto:
    return to_paged(model.model(), model.spec, DecoderOptions(**options)).graph


def _kinds(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


def test_the_interface(tiny: ModuleType) -> None:
    graph = _paged(tiny.Tiny(), cache_dtype="int8")
    assert [value.name for value in graph.input] == [
        "input_ids", "position_ids", "sequence_offsets", "past_lengths", "page_table", "logits_rows", "cache",
        "cache_scales",
    ]  # fmt: skip
    (output,) = graph.output
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["rows", 97]
    assert not {"GroupQueryAttention", "ReduceSum", "Shape"} & set(_kinds(graph))
    assert _kinds(graph).count("Concat") == 2, "q, k and v of each layer"
    assert "Concat" not in _kinds(_paged(tiny.Tiny(packed=True)))


def test_rows_are_taken_behind_the_last_attention(tiny: ModuleType) -> None:
    graph = _paged(tiny.Tiny(packed=True))
    kinds = _kinds(graph)
    last = len(kinds) - 1 - kinds[::-1].index("PagedAttention")
    taken = [node for node in graph.node if node.op_type == "TakeRows"]
    assert {node.input[0] for node in taken} == {"1.attended", "0.end"}
    assert all(kinds.index("TakeRows") > last for _ in taken)
    assert "Sigmoid" in kinds[last:], "the last feed-forward part sees the rows alone"


def test_rows_are_taken_before_the_head_where_something_mixes_them(tiny: ModuleType) -> None:
    model = tiny.Tiny(packed=True).model()
    norm = next(node for node in model.graph.node if node.output[0] == "norm")
    norm.output[0] = "norm_turned"
    turned = [
        onnx.helper.make_node("Transpose", ["norm_turned"], ["norm_back"], perm=[0, 2, 1]),
        onnx.helper.make_node("Transpose", ["norm_back"], ["norm"], perm=[0, 2, 1]),
    ]
    nodes = [*list(model.graph.node)[:-1], *turned, model.graph.node[-1]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph = to_paged(model, tiny.Tiny(packed=True).spec, DecoderOptions()).graph
    assert [node.input[0] for node in graph.node if node.op_type == "TakeRows"] == ["norm"]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("rotary_interleaved", 1, "rotary embedding of neighbouring elements"),
        ("smooth_softmax", 1, "a softmax with a sink"),
    ],
)
def test_attention_of_other_kinds(tiny: ModuleType, attribute: str, value: int, message: str) -> None:
    model = tiny.Tiny()
    graph = model.model()
    attention = next(node for node in graph.graph.node if node.op_type == "GroupQueryAttention")
    attention.attribute.append(onnx.helper.make_attribute(attribute, value))
    with pytest.raises(ModelError, match=message):
        to_paged(graph, model.spec, DecoderOptions())


def test_a_past_of_another_name(tiny: ModuleType) -> None:
    model = tiny.Tiny(layers=1)
    graph = model.model()
    attention = next(node for node in graph.graph.node if node.op_type == "GroupQueryAttention")
    attention.input[3] = "state"
    with pytest.raises(ModelError, match="reads its past from 'state'"):
        to_paged(graph, model.spec, DecoderOptions())


def test_options_come_back_from_the_manifest(tiny: ModuleType) -> None:
    options = DecoderOptions(cache_dtype="int8", max_tokens=100, max_sequences=3, max_rows=7)
    assert options_of(decoder_info(tiny.Tiny().spec, options)) == options
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        DecoderOptions(max_tokens=0)
