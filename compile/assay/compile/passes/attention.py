"""Recognize attention, softmax(scale Q K^T + mask) V, and replace it by one kernel.

What lies between the product of Q and K and the softmax may be any chain of elementwise operators on
operands that broadcast (scales, additive masks, selections, a soft cap). Q, K and V are read through the
operators that only move data, so that heads split off a projection are read where they are; so is the result
written where a transposition behind it wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.passes.graph import Graph, is_call, scalar_of
from assay.compile.passes.views import View, trace
from assay.compile.schedules.attention import AttentionForm, attention
from assay.compile.schedules.ir import as_int, i64, same_shape

__all__ = ["fuse_attention"]

# TVM's relay::OpPatternKind: nothing fuses with this kernel.
_OPAQUE = 8

_STEPS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "maximum": tirx.max,
    "minimum": tirx.min,
    "where": tirx.Select,
    "tanh": tirx.tanh,
}


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One elementwise operator on the scores; None among the operands is the scores themselves."""

    name: str
    operands: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class _Match:
    """One attention: its operands, the steps on its scores in order, and the order of its result's axes."""

    q: View
    k: View
    v: View
    extents: tuple[Any, ...]
    depth: int
    value_depth: int
    scale: float
    steps: tuple[_Step, ...]
    order: tuple[int, ...]
    zero_masked: bool


def fuse_attention(module: Any, fits: Callable[[int, int, int], bool] | None = None) -> Any:
    """``module`` with every attention whose scores and weights nothing else reads as one kernel.

    ``fits(depth, value_depth, buffers)``: whether there is a kernel for heads of these sizes that takes as
    many buffers, its result included; None where there is one for any.
    """
    main = module["main"]
    graph = Graph(main)
    matches = {}
    for var, value in graph.values.items():
        found = _match(graph, var, value) if is_call(value, "nn.softmax") else None
        if found is not None and (fits is None or _fits(found[1], fits)):
            matches[found[0]] = found[1]
    if not matches:
        return module
    fuser = _Fuser(module, matches)
    fuser.builder_.update_func(module.get_global_var("main"), fuser.visit_expr(main))
    module = relax.transform.CanonicalizeBindings()(fuser.builder_.get())
    return relax.transform.DeadCodeElimination()(module)


def _fits(match: _Match, fits: Callable[[int, int, int], bool]) -> bool:
    tensors = [match.q.base, match.k.base, match.v.base]
    tensors += [each for step in match.steps for each in step.operands if each is not None]
    distinct = {each for each in tensors if scalar_of(each) is None}
    return fits(match.depth, match.value_depth, len(distinct) + 1)


def _match(graph: Graph, softmax: Any, call: Any) -> tuple[Any, _Match] | None:
    """The variable to replace and the attention behind a softmax."""
    rank = call.ty.ndim
    if int(call.attrs.axis) % rank != rank - 1 or str(call.ty.dtype) != "float32" or call.ty.shape is None:
        return None
    weights, zero_masked = _without_guard(graph, softmax)
    result = None if weights is None else graph.only_user(weights)
    scores = _scores(graph, call.args[0], list(call.ty.shape))
    if result is None or scores is None or not is_call(graph.values[result], "matmul"):
        return None
    product, steps = scores
    values = graph.values[result]
    if not values.args[0].same_as(weights) or values.args[1].same_as(weights):
        return None
    q, k, v = product.args[0], product.args[1], values.args[1]
    lead = list(call.ty.shape)[:-2]
    depth, value_depth = as_int(q.ty.shape[-1]), as_int(v.ty.shape[-1])
    if depth is None or value_depth is None or len(lead) != values.ty.ndim - 2:
        return None
    if not same_shape(list(values.ty.shape)[:-2], lead):
        return None
    views = [
        _broadcast_view(trace(graph, operand, factors=operand is not v), operand, lead)
        for operand in (q, k, v)
    ]
    order, final = tuple(range(rank)), result
    user = graph.only_user(result)
    if user is not None and is_call(graph.values[user], "permute_dims"):
        axes = graph.values[user].attrs.axes
        order = tuple(reversed(order)) if axes is None else tuple(int(a) for a in axes)
        final = user
    scale = views[0].scale * views[1].scale
    while steps and (number := _leading_factor(steps[0])) is not None:
        scale, steps = scale * number, steps[1:]
    return final, _Match(
        q=views[0],
        k=views[1],
        v=views[2],
        extents=tuple(call.ty.shape),
        depth=depth,
        value_depth=value_depth,
        scale=scale,
        steps=tuple(steps),
        order=order,
        zero_masked=zero_masked,
    )


def _without_guard(graph: Graph, softmax: Any) -> tuple[Any | None, bool]:
    """The weights, behind the guard that puts zeros for what is no number; whether there is one."""
    users = graph.users(softmax)
    tests = [user for user in users if is_call(graph.values[user], "isnan")]
    if len(users) != 2 or len(tests) != 1 or graph.is_output(softmax):
        return softmax, False
    (guard,) = [user for user in users if not user.same_as(tests[0])]
    call = graph.values[guard]
    if not is_call(call, "where") or graph.only_user(tests[0]) is None:
        return None, False
    condition, zero, weights = call.args
    if condition.same_as(tests[0]) and scalar_of(zero) == 0.0 and weights.same_as(softmax):
        return guard, True
    return None, False


def _scores(graph: Graph, expr: Any, shape: Sequence[Any]) -> tuple[Any, list[_Step]] | None:
    """The product of Q and K behind the softmax's operand, and the steps between, first one first."""
    call = graph.value(expr)
    if not isinstance(expr, relax.Var) or graph.only_user(expr) is None:
        return None
    if str(expr.ty.dtype) != "float32" or expr.ty.shape is None:
        return None
    if not same_shape(list(expr.ty.shape), shape):
        return None
    if is_call(call, "matmul"):
        return (call, []) if array_of(call.args[1]) is None and call.args[0].ty.ndim >= 2 else None
    if not is_call(call, *_STEPS):
        return None
    for position, operand in enumerate(call.args):
        found = _scores(graph, operand, shape)
        others = [other for i, other in enumerate(call.args) if i != position]
        if found is None or not all(_is_usable(other, shape) for other in others):
            continue
        if is_call(call, "where") and position == 0:
            continue
        operands = tuple(None if i == position else other for i, other in enumerate(call.args))
        name = call.op.name.removeprefix("relax.")
        product, steps = found
        return product, steps if _is_nothing(name, operands) else [
            *steps,
            _Step(name=name, operands=operands),
        ]
    return None


def _is_usable(operand: Any, shape: Sequence[Any]) -> bool:
    return operand.ty.shape is not None and operand.ty.ndim <= len(shape)


def _is_nothing(name: str, operands: Sequence[Any]) -> bool:
    """Whether a step adds zeros: a mask that masks nothing."""
    arrays = [array_of(operand) for operand in operands if operand is not None]
    return name == "add" and arrays[0] is not None and not arrays[0].any()


def _leading_factor(step: _Step) -> float | None:
    """The number by which a step multiplies the scores, where it does nothing else."""
    if step.name not in ("multiply", "divide") or (step.name == "divide" and step.operands[0] is not None):
        return None
    (number,) = [scalar_of(operand) for operand in step.operands if operand is not None]
    if number is None or step.name == "multiply":
        return number
    return 1.0 / number if number else None


def _broadcast_view(view: View, operand: Any, lead: Sequence[Any]) -> View:
    """A view that is indexed by the whole result's leading axes."""
    own = list(operand.ty.shape)[:-2]
    skipped = len(lead) - len(own)

    def at(index: Sequence[Any]) -> list[Any]:
        outer = [
            i64(0) if as_int(extent) == 1 else i for i, extent in zip(index[skipped:-2], own, strict=True)
        ]
        return view.at([*outer, *index[-2:]])

    return View(base=view.base, at=at, scale=view.scale)


@mutator
class _Fuser(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, matches: dict[Any, _Match]) -> None:
        super().__init__(module)
        self.matches = matches
        self.turned: dict[Any, Any] = {}

    def visit_var_binding_(self, binding: Any) -> None:
        match = self.matches.get(binding.var)
        if match is None:
            super().visit_var_binding_(binding)
            return
        emit = self.builder_.emit if isinstance(binding.var, relax.DataflowVar) else self.builder_.emit_output
        self.set_var_remap(binding.var, emit(self._fused(match), binding.var.name))

    def _fused(self, match: _Match) -> Any:
        tensors: list[Any] = []

        def position(tensor: Any) -> int:
            known = next((i for i, other in enumerate(tensors) if other.same_as(tensor)), None)
            if known is None:
                tensors.append(tensor)
            return len(tensors) - 1 if known is None else known

        q, k, v = (position(self.visit_expr(view.base)) for view in (match.q, match.k, match.v))
        steps: list[tuple[Callable[..., Any], list[Any]]] = []
        for step in match.steps:
            operands: list[Any] = []
            for operand in step.operands:
                number = None if operand is None else scalar_of(operand)
                turned = None if operand is None or number is not None else self._turned(operand)
                operands.append(number if turned is None else (position(turned),))
            steps.append((_STEPS[step.name], operands))

        def modify(scores: Any, inputs: Sequence[Any]) -> Any:
            for function, operands in steps:
                scores = _elementwise(
                    function, scores, [inputs[o[0]] if isinstance(o, tuple) else o for o in operands]
                )
            return scores

        def compute(*inputs: Any, extents: Any) -> Any:
            form = AttentionForm(
                lead=tuple(extents[:-2]),
                queries=extents[-2],
                keys=extents[-1],
                depth=match.depth,
                value_depth=match.value_depth,
                q=lambda *index: match.q.at(index),
                k=lambda *index: match.k.at([*index[:-2], index[-1], index[-2]]),
                v=lambda *index: match.v.at(index),
                scale=match.scale,
                order=match.order,
                zero_masked=match.zero_masked,
            )
            return attention(inputs[q], inputs[k], inputs[v], form, lambda s: modify(s, inputs))

        return self.builder_.call_te(
            compute,
            *tensors,
            extents=list(match.extents),
            primfunc_name_hint="attention",
            primfunc_attrs={"op_pattern": _OPAQUE},
        )

    def _turned(self, operand: Any) -> Any:
        """An operand of the scores with queries last: as it is read, and once for all that read it."""
        if operand in self.turned:
            return self.turned[operand]
        shape = [*([1] * (2 - operand.ty.ndim)), *operand.ty.shape]
        array = array_of(operand)
        if array is not None:
            turned = relax.const(
                np.ascontiguousarray(array.reshape([int(s) for s in shape]).swapaxes(-1, -2))
            )
        else:
            own = self.visit_expr(operand)
            target = [*shape[:-2], shape[-1], shape[-2]]
            if as_int(shape[-1]) == 1 or as_int(shape[-2]) == 1:
                turned = self.builder_.emit(relax.op.reshape(own, target))
            else:
                axes = list(range(len(shape)))
                turned = self.builder_.emit(relax.op.permute_dims(own, [*axes[:-2], axes[-1], axes[-2]]))
        self.turned[operand] = turned
        return turned


def _elementwise(function: Callable[..., Any], scores: Any, operands: Sequence[Any]) -> Any:
    """TE: ``function`` of tensors that broadcast, of numbers, and of the scores where an operand is None."""

    def element(*index: Any) -> Any:
        values = []
        for operand in operands:
            if operand is None:
                values.append(scores[index])
            elif isinstance(operand, float):
                values.append(tirx.const(operand, "float32"))
            else:
                own = index[len(index) - len(operand.shape) :]
                at = [i64(0) if as_int(e) == 1 else i for i, e in zip(own, operand.shape, strict=True)]
                values.append(operand[tuple(at)])
        return function(*values)

    return te.compute(scores.shape, element, name="modified")
