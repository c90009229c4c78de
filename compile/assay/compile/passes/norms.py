"""Recognize layer norm and RMS norm written out in small operators, and make each one operator again.

A mean is a reduction in the middle of the graph, across which nothing is fused: written out, a norm takes
several kernels and passes over its operand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.passes.graph import Graph, is_call, scalar_of, static_shape

__all__ = ["join_norms"]


@dataclass(frozen=True, kw_only=True)
class _Norm:
    """``x`` over the root of its mean square plus ``epsilon``, or so with the mean taken off before."""

    x: Any
    epsilon: float
    centred: bool


@dataclass(frozen=True, kw_only=True)
class _Match:
    norm: _Norm
    weight: Any
    bias: Any | None


def join_norms(module: Any) -> Any:
    """``module`` with norms over the last axis as one operator each."""
    main = module["main"]
    graph = Graph(main)
    matches: dict[Any, _Match] = {}
    for var, value in graph.values.items():
        scaled = _scaled(graph, value)
        if scaled is None:
            continue
        norm, weight = scaled
        shifted = _shifted(graph, var) if norm.centred else None
        final, bias = shifted or (var, None)
        if bias is None and norm.centred:
            bias = np.zeros_like(weight)
        matches[final] = _Match(norm=norm, weight=weight, bias=bias)
    if not matches:
        return module
    joiner = _Joiner(module, matches)
    joiner.builder_.update_func(module.get_global_var("main"), joiner.visit_expr(main))
    module = relax.transform.CanonicalizeBindings()(joiner.builder_.get())
    return relax.transform.DeadCodeElimination()(module)


def _pairs(call: Any) -> list[tuple[Any, Any]]:
    """The operands of a commutative operator in both orders."""
    a, b = call.args
    return [(a, b), (b, a)]


def _row(expr: Any, width: int | None) -> Any | None:
    """A constant with one number for each element of a row."""
    array = array_of(expr)
    return array if array is not None and array.shape == (width,) and array.dtype == np.float32 else None


def _scaled(graph: Graph, value: Any) -> tuple[_Norm, Any] | None:
    """A norm times a row of weights."""
    if not is_call(value, "multiply") or str(value.ty.dtype) != "float32":
        return None
    for weight, normal in _pairs(value):
        norm = _norm(graph, graph.value(normal))
        shape = None if norm is None else static_shape(norm.x)
        row = None if not shape else _row(weight, shape[-1])
        if norm is not None and row is not None:
            return norm, row
    return None


def _shifted(graph: Graph, var: Any) -> tuple[Any, Any] | None:
    """The one user of a scaled norm, where it adds a row of biases."""
    user = graph.only_user(var)
    if user is None or not is_call(graph.values[user], "add"):
        return None
    shape = static_shape(var)
    for bias, other in _pairs(graph.values[user]):
        row = None if not shape else _row(bias, shape[-1])
        if row is not None and other.same_as(var):
            return user, row
    return None


def _norm(graph: Graph, value: Any) -> _Norm | None:
    """``x / sqrt(mean(x^2) + epsilon)``, with a division, a reciprocal or an inverse root."""
    if is_call(value, "divide"):
        operand, mean = value.args[0], _under_root(graph, graph.value(value.args[1]), "sqrt")
        return None if mean is None else _of_mean_square(graph, operand, mean)
    if is_call(value, "multiply"):
        for operand, factor in _pairs(value):
            inverse = graph.value(factor)
            mean = _under_root(graph, inverse, "rsqrt")
            if mean is None and is_call(inverse, "divide") and scalar_of(inverse.args[0]) == 1.0:
                mean = _under_root(graph, graph.value(inverse.args[1]), "sqrt")
            found = None if mean is None else _of_mean_square(graph, operand, mean)
            if found is not None:
                return found
    return None


def _under_root(graph: Graph, value: Any, root: str) -> tuple[Any, float] | None:
    """The mean and the number added to it under a root."""
    if not is_call(value, root):
        return None
    added = graph.value(value.args[0])
    if not is_call(added, "add"):
        return None
    for mean, epsilon in _pairs(added):
        number = scalar_of(epsilon)
        if number is not None and is_call(graph.value(mean), "mean"):
            return graph.value(mean), number
    return None


def _of_mean_square(graph: Graph, operand: Any, mean: tuple[Any, float]) -> _Norm | None:
    """The norm of ``operand``, where the mean is that of its squares along the last axis."""
    call, epsilon = mean
    squares = graph.value(call.args[0])
    if not _is_along_row(call) or not _is_square(squares, operand):
        return None
    centred = graph.value(operand)
    if is_call(centred, "subtract"):
        x, taken = centred.args[0], graph.value(centred.args[1])
        if is_call(taken, "mean") and _is_along_row(taken) and taken.args[0].same_as(x):
            return _Norm(x=x, epsilon=epsilon, centred=True)
    return _Norm(x=operand, epsilon=epsilon, centred=False)


def _is_along_row(mean: Any) -> bool:
    axes = [] if mean.attrs.axis is None else [int(a) % mean.args[0].ty.ndim for a in mean.attrs.axis]
    return bool(mean.attrs.keepdims) and axes == [mean.args[0].ty.ndim - 1]


def _is_square(value: Any, operand: Any) -> bool:
    if is_call(value, "square"):
        return bool(value.args[0].same_as(operand))
    if is_call(value, "power"):
        return bool(value.args[0].same_as(operand)) and scalar_of(value.args[1]) == 2.0
    return is_call(value, "multiply") and all(arg.same_as(operand) for arg in value.args)


@mutator
class _Joiner(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, matches: dict[Any, _Match]) -> None:
        super().__init__(module)
        self.matches = matches

    def visit_var_binding_(self, binding: Any) -> None:
        match = self.matches.get(binding.var)
        if match is None:
            super().visit_var_binding_(binding)
            return
        x, epsilon = self.visit_expr(match.norm.x), match.norm.epsilon
        if match.norm.centred:
            rows = [relax.const(match.weight), relax.const(match.bias)]
            norm = relax.op.nn.layer_norm(x, *rows, axes=[-1], epsilon=epsilon)
        else:
            norm = relax.op.nn.rms_norm(x, relax.const(match.weight), axes=[-1], epsilon=epsilon)
        emit = self.builder_.emit if isinstance(binding.var, relax.DataflowVar) else self.builder_.emit_output
        self.set_var_remap(binding.var, emit(norm, binding.var.name))
