"""Operators that are functions of simpler ones: inlined where the compiler's importer lacks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from assay.errors import UnsupportedOperatorError

if TYPE_CHECKING:
    import onnx

__all__ = ["INLINED_OPERATORS", "check_operators", "inline", "needs_inlining"]

# Standard operators that ONNX defines by a function body and that TVM's importer lacks, or takes for another
# (Attention for ONNX Runtime's own).
INLINED_OPERATORS = frozenset(
    {
        "Attention",
        "BlackmanWindow",
        "CausalConvWithState",
        "Celu",
        "CenterCropPad",
        "HammingWindow",
        "HannWindow",
        "LinearAttention",
        "NegativeLogLikelihoodLoss",
        "RotaryEmbedding",
        "SoftmaxCrossEntropyLoss",
        "SwiGLU",
        "Swish",
    }
)

_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def check_operators(model: onnx.ModelProto) -> None:
    """Raise UnsupportedOperatorError, naming the node, for an operator that nobody here defines."""
    local = {(function.domain, function.name) for function in model.functions}
    bodies: list[Sequence[onnx.NodeProto]] = [
        model.graph.node,
        *(function.node for function in model.functions),
    ]
    for body in bodies:
        for node in _nodes(body):
            if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type) not in local:
                where = node.name or (node.output[0] if node.output else "without a name")
                raise UnsupportedOperatorError(
                    f"The operator {node.domain}::{node.op_type} of the node {where!r} is not part of ONNX.",
                    hint="Export the model with standard operators, or include the operator's function body.",
                )


def needs_inlining(model: onnx.ModelProto) -> bool:
    """Whether the model has functions of its own, or calls an operator in ``INLINED_OPERATORS``."""
    return bool(model.functions) or bool(_inlined_operators(model))


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` without model-local functions and without the operators in ``INLINED_OPERATORS``.

    Raises UnsupportedOperatorError for an operator whose function body ONNX cannot give for these inputs.
    """
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    names = _inlined_operators(model)
    if names:
        try:
            model = onnx.inliner.inline_selected_functions(
                model, [("", name) for name in names], inline_schema_functions=True
            )
        except RuntimeError as error:
            raise UnsupportedOperatorError(
                f"The operator {' or '.join(names)} cannot be expressed by simpler ones: {error}."
            ) from error
    return model


def _inlined_operators(model: onnx.ModelProto) -> list[str]:
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    used = {node.op_type for body in bodies for node in _nodes(body) if node.domain in ("", "ai.onnx")}
    return sorted(used & INLINED_OPERATORS)


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """``nodes`` and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)
