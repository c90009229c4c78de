"""Operators that are functions of simpler ones: inlined where the compiler's importer lacks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from assay.errors import UnsupportedOperatorError

if TYPE_CHECKING:
    import onnx

__all__ = ["INLINED_OPERATORS", "check_operators", "inline"]

# Standard operators that ONNX defines by a function body and that TVM's importer does not know.
INLINED_OPERATORS = frozenset(
    {
        "CenterCropPad",
        "Celu",
    }
)

_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def check_operators(model: onnx.ModelProto) -> None:
    """Raise UnsupportedOperatorError, naming the node, for an operator that nobody here defines."""
    local = {(function.domain, function.name) for function in model.functions}
    bodies: list[Sequence[onnx.NodeProto]] = [model.graph.node, *(function.node for function in model.functions)]
    for body in bodies:
        for node in _nodes(body):
            if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type) not in local:
                where = node.name or (node.output[0] if node.output else "without a name")
                raise UnsupportedOperatorError(
                    f"The operator {node.domain}::{node.op_type} of the node {where!r} is not part of ONNX.",
                    hint="Export the model with standard ONNX operators, or ship the operator's function body.",
                )


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` without model-local functions and without the operators in ``INLINED_OPERATORS``."""
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    used = {node.op_type for node in _nodes(model.graph.node) if node.domain in ("", "ai.onnx")}
    if used & INLINED_OPERATORS:
        selected = [("", name) for name in sorted(used & INLINED_OPERATORS)]
        model = onnx.inliner.inline_selected_functions(model, selected, inline_schema_functions=True)
    return model


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """``nodes`` and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)
