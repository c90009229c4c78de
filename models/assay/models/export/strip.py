"""Removes from a model whatever does not change what it computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["names_in_subgraphs", "remove_unused", "strip_provenance"]


def strip_provenance(model: onnx.ModelProto) -> None:
    """Drop documentation, metadata, producer and intermediate shapes, in place.

    Exporters write stack traces with the paths of their machine, and tool versions: with them the same model
    would have another digest on every machine.
    """
    for field in (
        "producer_name",
        "producer_version",
        "domain",
        "model_version",
        "doc_string",
        "metadata_props",
    ):
        model.ClearField(field)
    _strip_graph(model.graph)
    model.graph.name = "main"
    for function in model.functions:
        function.ClearField("doc_string")
        function.ClearField("metadata_props")
        _strip_nodes(function.node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    for field in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
        graph.ClearField(field)
    for item in (*graph.initializer, *graph.input, *graph.output):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.HasField("g"):
                _strip_graph(attribute.g)
            for graph in attribute.graphs:
                _strip_graph(graph)


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop nodes, initializers and operator sets that no output needs, in place; order is kept otherwise."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(_names_read(node))
            kept.append(node)
    kept.reverse()
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)
    unused = [index for index, tensor in enumerate(graph.initializer) if tensor.name not in needed]
    for index in reversed(unused):
        del graph.initializer[index]
    domains = {node.domain or "" for node in _all_nodes(graph.node)}
    domains |= {node.domain or "" for function in model.functions for node in function.node}
    for entry in [entry for entry in model.opset_import if entry.domain not in domains | {""}]:
        model.opset_import.remove(entry)


def _names_read(node: onnx.NodeProto) -> set[str]:
    return {name for name in node.input if name} | names_in_subgraphs(node)


def names_in_subgraphs(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of ``node`` read, of values from outside among them."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names |= _names_read(inner)
    return names


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _all_nodes(graph.node)
