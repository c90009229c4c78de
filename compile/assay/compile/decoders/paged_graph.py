"""The canonical decoder ONNX rewritten for one entry over a paged cache.

Batch becomes 1, past and present go, every GroupQueryAttention becomes a PagedAttention of our own domain,
and logits are computed for the rows in ``logits_rows`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assay.compile.decoders.interface import DecoderOptions, paged_inputs
from assay.errors import ModelError
from assay.models.decoders.spec import DecoderSpec
from assay.models.spec import InputSpec, SymbolicDim

if TYPE_CHECKING:
    import onnx

__all__ = ["DOMAIN", "to_paged"]

DOMAIN = "assay"

_KEPT_INPUTS = ("input_ids", "position_ids")
_LOGITS = "logits"

# Operators whose result in a row depends on that row of the operands alone.
_ROW_BY_ROW = frozenset(
    {
        "Add", "BiasGelu", "Cast", "Div", "Erf", "FastGelu", "Gelu", "LayerNormalization", "MatMul",
        "MatMulNBits", "Mul", "Pow", "QuickGelu", "Relu", "RMSNormalization", "Sigmoid",
        "Split", "Sqrt", "Sub", "Tanh",
    }
)  # fmt: skip


def to_paged(model: onnx.ModelProto, decoder: DecoderSpec, options: DecoderOptions) -> onnx.ModelProto:
    """``model``, which is changed, with the interface of ``paged_inputs``.

    Raises ModelError for a graph that is no canonical decoder.
    """
    graph = model.graph
    found = sum(node.op_type == "GroupQueryAttention" for node in graph.node)
    if found != decoder.layers:
        raise ModelError(
            f"The model has {found} GroupQueryAttention operators for {decoder.layers} layers.",
            hint="A decoder needs one for each layer, with past and present as inputs and outputs.",
        )
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        is_attention = node.op_type == "GroupQueryAttention"
        nodes += _paged_attention(node, decoder, options) if is_attention else [node]
    nodes = _gather_rows(nodes, {tensor.name for tensor in graph.initializer})
    nodes = _needed(nodes, _LOGITS)
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    _replace(graph.node, nodes)
    _replace(graph.initializer, weights)
    _replace_interface(graph, paged_inputs(decoder, options), decoder)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.add(domain=DOMAIN, version=1)
    return model


def _replace(field: Any, messages: Sequence[Any]) -> None:
    """A repeated field with these messages, some of which may be its own."""
    kept = list(messages)
    del field[:]
    field.extend(kept)


def _paged_attention(
    node: onnx.NodeProto, decoder: DecoderSpec, options: DecoderOptions
) -> list[onnx.NodeProto]:
    """What takes the place of an operator over past and present."""
    from onnx import helper

    query, key, value, past_key, *rest = list(node.input) + [""] * (12 - len(node.input))
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    _refuse(node, rest, attributes)
    heads, kv_heads = int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    if (heads, kv_heads) != (decoder.heads, decoder.kv_heads):
        raise ModelError(
            f"The node {node.name!r} has {heads} heads and {kv_heads} of keys and values; "
            f"the model's description has {decoder.heads} and {decoder.kv_heads}."
        )
    fresh = []
    if key:
        joined = f"{node.output[0]}_qkv"
        fresh.append(helper.make_node("Concat", [query, key, value], [joined], axis=-1))
        query = joined
    cosines, sines = rest[3:5] if int(attributes.get("do_rotary", 0)) else ("", "")
    scales = "cache_scales" if options.cache_dtype == "int8" else ""
    calls = ["position_ids", "past_lengths", "sequence_offsets", "page_table", "cache", scales]
    paged = helper.make_node(
        "PagedAttention",
        [query, cosines, sines, *calls],
        [node.output[0]],
        name=node.name,
        domain=DOMAIN,
        heads=heads,
        layer=_layer(past_key, node),
        window=max(0, int(attributes.get("local_window_size", -1))),
        scale=float(attributes.get("scale", 0.0)) or decoder.head_dim**-0.5,
        softcap=float(attributes.get("softcap", 0.0)),
    )
    return [*fresh, paged]


def _layer(past_key: str, node: onnx.NodeProto) -> int:
    """The layer that ``past_key_values.{layer}.key`` names."""
    parts = past_key.split(".")
    if len(parts) != 3 or parts[0] != "past_key_values" or not parts[1].isdigit():
        raise ModelError(f"The node {node.name!r} reads its past from {past_key or 'nowhere'!r}.")
    return int(parts[1])


def _refuse(node: onnx.NodeProto, rest: Sequence[str], attributes: Mapping[str, Any]) -> None:
    """Raise ModelError for what attention over the cache does not do; ``rest``: inputs from past_value on."""
    problem = None
    if int(attributes.get("rotary_interleaved", 0)) > 0 and int(attributes.get("do_rotary", 0)):
        problem = "rotary embedding of neighbouring elements"
    elif int(attributes.get("smooth_softmax", 0)) > 0 or rest[7]:
        problem = "a softmax with a sink"
    elif rest[6]:
        problem = "a bias on scores"
    if problem:
        raise ModelError(f"The node {node.name!r} has {problem}, which cannot be compiled.")


def _gather_rows(nodes: Sequence[onnx.NodeProto], initializers: set[str]) -> list[onnx.NodeProto]:
    """Take the rows that get logits as early as nothing after them mixes rows: behind the last attention."""
    from onnx import helper

    made_by = {name: node for node in nodes for name in node.output}
    if _LOGITS not in made_by:
        raise ModelError(f"The model has no output {_LOGITS!r}.")
    last = next(node for node in reversed(nodes) if node.op_type == "PagedAttention")
    after = _downstream(nodes, last.output[0])
    if not after or any(made_by[name].op_type not in _ROW_BY_ROW for name in after):
        after = {_LOGITS}
    constant = _constants(nodes, initializers)
    rows: dict[str, str] = {}
    result: list[onnx.NodeProto] = []
    for node in nodes:
        if node.output[0] in after:
            for i, name in enumerate(node.input):
                if not name or name in after or name in constant:
                    continue
                if name not in rows:
                    rows[name] = f"{name}_rows"
                    take = helper.make_node("TakeRows", [name, "logits_rows"], [rows[name]], domain=DOMAIN)
                    result.append(take)
                node.input[i] = rows[name]
        result.append(node)
    batch = f"{_LOGITS}_of_batch"
    final = made_by[_LOGITS]
    final.output[list(final.output).index(_LOGITS)] = batch
    return [*result, helper.make_node("DropBatch", [batch], [_LOGITS], domain=DOMAIN)]


def _downstream(nodes: Sequence[onnx.NodeProto], name: str) -> set[str]:
    """The results that depend on ``name``; ``nodes`` are in order."""
    reached = {name}
    for node in nodes:
        if any(each in reached for each in node.input):
            reached.update(node.output)
    return reached - {name}


def _constants(nodes: Sequence[onnx.NodeProto], initializers: set[str]) -> set[str]:
    """The values that depend on no input."""
    known = set(initializers)
    for node in nodes:
        if all(name in known for name in node.input if name):
            known.update(node.output)
    return known


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that ``output`` needs."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _replace_interface(graph: onnx.GraphProto, inputs: Sequence[InputSpec], decoder: DecoderSpec) -> None:
    import onnx

    def declare(name: str, dtype: str, shape: Sequence[Any]) -> onnx.ValueInfoProto:
        element = onnx.helper.np_dtype_to_tensor_dtype(_dtype(dtype))
        dims = [dim.name if isinstance(dim, SymbolicDim) else dim for dim in shape]
        return onnx.helper.make_tensor_value_info(name, element, dims)

    del graph.input[:]
    graph.input.extend(declare(item.name, item.dtype.value, item.shape) for item in inputs)
    del graph.output[:]
    graph.output.append(declare(_LOGITS, "float32", ["rows", decoder.vocabulary]))
    del graph.value_info[:]


def _dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name)
