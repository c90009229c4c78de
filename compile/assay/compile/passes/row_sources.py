"""Norms and gates whose result nothing but products of quantized activations reads."""

from __future__ import annotations

from typing import Any

from tvm import relax

from assay.compile.passes.graph import Graph, is_call, static_shape
from assay.compile.schedules.block_problem import MATMUL, BlockCall, block_call
from assay.compile.schedules.quantized_rows import GatedRows, NormedRows, RowSource

__all__ = ["norm_of_products", "product_before_gate", "row_source"]


def row_source(graph: Graph, x: Any) -> tuple[RowSource, list[Any], str] | None:
    """What ``x`` is computed from where its products may compute it: how, the tensors, and a name for it.

    None where something else reads ``x`` too, or where it is neither a norm nor a gate.
    """
    calls = _products_of(graph, x)
    if not calls or not all(call.integer for call in calls):
        return None
    return _normed(graph.value(x)) or _gated(graph, graph.value(x))


def norm_of_products(graph: Graph, x: Any) -> tuple[float, list[Any]] | None:
    """The epsilon and the operands of the RMS norm that ``x`` is; None where not only products read it."""
    known = _normed(graph.value(x)) if _products_of(graph, x) else None
    return None if known is None else (known[0].epsilon, known[1])


def product_before_gate(graph: Graph, value: Any) -> Any | None:
    """The product with block-quantized weights that ``value`` is a gate of: SiLU of one half times the other.

    None where ``value`` is none such, or where more than halves of the product are read.
    """
    known = _gated(graph, value)
    whole = None if known is None else known[1][0]
    if not isinstance(whole, relax.Var) or graph.is_output(whole):
        return None
    if not all(is_call(graph.value(user), "split", "strided_slice") for user in graph.users(whole)):
        return None
    product = graph.value(whole)
    return None if block_call(product, MATMUL) is None else product


def _products_of(graph: Graph, x: Any) -> list[BlockCall]:
    """The products with block-quantized weights that read ``x``; none where something else does too."""
    if not isinstance(x, relax.Var) or graph.is_output(x):
        return []
    calls = [block_call(graph.value(user), MATMUL) for user in graph.users(x)]
    return [] if None in calls else [call[0] for call in calls if call is not None]


def _normed(value: Any) -> tuple[NormedRows, list[Any], str] | None:
    """RMS norm over the last axis."""
    if not is_call(value, "nn.rms_norm") or str(value.ty.dtype) != "float32":
        return None
    shape = static_shape(value)
    if shape is None or [int(axis) % len(shape) for axis in value.attrs.axes] != [len(shape) - 1]:
        return None
    if static_shape(value.args[1]) != shape[-1:]:
        return None
    return NormedRows(epsilon=float(value.attrs.epsilon)), list(value.args), "rms_norm_"


def _gated(graph: Graph, value: Any) -> tuple[RowSource, list[Any], str] | None:
    """SiLU of the first half of a tensor times the second."""
    for silu, up in _orders(value):
        for gate, sigmoid in _orders(graph.value(silu)):
            inner = graph.value(sigmoid)
            if not is_call(inner, "sigmoid") or not inner.args[0].same_as(gate):
                continue
            first, second = _half(graph, gate), _half(graph, up)
            if first is None or second is None or str(value.ty.dtype) != "float32":
                continue
            if first[0].same_as(second[0]) and (first[1], second[1]) == (0, 1):
                return GatedRows(), [first[0]], "silu_"
    return None


def _orders(value: Any) -> list[tuple[Any, Any]]:
    """The operands of a product, both ways round."""
    if not is_call(value, "multiply"):
        return []
    a, b = value.args
    return [(a, b), (b, a)]


def _half(graph: Graph, expr: Any) -> tuple[Any, int] | None:
    """The tensor that ``expr`` is a half of along the last axis, and which of both."""
    value = graph.value(expr)
    if isinstance(value, relax.TupleGetItem):
        cut, number = graph.value(value.tuple_value), int(value.index)
        if not is_call(cut, "split"):
            return None
    elif is_call(value, "strided_slice"):
        cut, number = value, None
    else:
        return None
    whole, shape, part = cut.args[0], static_shape(cut.args[0]), static_shape(expr)
    if not shape or not part or shape[-1] is None or part[-1] is None or part[-1] * 2 != shape[-1]:
        return None
    if number is not None:
        return (whole, number) if int(cut.attrs.axis) % len(shape) == len(shape) - 1 else None
    axes, begins, _, *strides = ([int(each) for each in operand.fields] for operand in cut.args[1:])
    if [axis % len(shape) for axis in axes] != [len(shape) - 1] or strides not in ([], [[1]]):
        return None
    return whole, begins[0] // part[-1]
