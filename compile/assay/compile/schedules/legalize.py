"""Operators as single-result computations, where TVM's own definition reduces several values at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tvm import relax, te, tirx, topi

__all__ = ["group_norm", "legalizations", "position_of_extreme"]


def position_of_extreme(x: Any, axis: int | None, keepdims: bool, *, largest: bool) -> Any:
    """TE: the first position of the largest (or smallest) element along ``axis`` (None: of the flat array).

    int64, of ``x``'s shape without the axis, or with one element along it. Two reductions that vectorize,
    the extreme value and the first position that holds it, instead of one over pairs that does not.
    """
    rank = len(x.shape)
    axes = list(range(rank)) if axis is None else [axis % rank]
    extreme = (topi.max if largest else topi.min)(x, axes, keepdims=True)
    reduced = [te.reduce_axis((0, x.shape[a]), "k") for a in axes]
    count = _product(x.shape[a] for a in axes)
    shape = [1 if a in axes else size for a, size in enumerate(x.shape)]

    def first(*index: Any) -> Any:
        at, position = list(index), tirx.const(0, "int32")
        for a, k in zip(axes, reduced, strict=True):
            at[a] = k.var
            position = position * tirx.Cast("int32", x.shape[a]) + tirx.Cast("int32", k.var)
        # Not a number equals nothing: the last position is as good an answer as any.
        other = tirx.Cast("int32", count - 1)
        return te.min(tirx.Select(x[tuple(at)] == extreme[index], position, other), axis=reduced)

    position = te.compute(shape, first, name="position")
    wide = te.compute(shape, lambda *i: tirx.Cast("int64", position[i]), name="wide")
    return wide if keepdims else topi.squeeze(wide, axes)


def _product(extents: Iterable[Any]) -> Any:
    product: Any = 1
    for extent in extents:
        product = product * extent
    return product


def _legalize_extreme(*, largest: bool) -> Callable[[Any, Any], Any]:
    def legalize(builder: Any, call: Any) -> Any:
        axis = None if call.attrs.axis is None else int(call.attrs.axis)
        return builder.call_te(
            lambda x: position_of_extreme(x, axis, bool(call.attrs.keepdims), largest=largest),
            call.args[0],
            primfunc_name_hint="argmax" if largest else "argmin",
        )

    return legalize


def group_norm(x: Any, scale: Any, bias: Any, epsilon: float) -> Any:
    """TE: x ``[N, G, C/G, ...]`` normalized over all but two axes; scale and bias are ``[G, C/G]``."""
    axes = list(range(2, len(x.shape)))
    count = _product(x.shape[a] for a in axes)
    rest = [1] * (len(x.shape) - 3)
    mean = topi.divide(topi.sum(x, axes, keepdims=True), tirx.Cast(x.dtype, count))
    centred = topi.subtract(x, mean)
    variance = topi.divide(
        topi.sum(topi.multiply(centred, centred), axes, keepdims=True), tirx.Cast(x.dtype, count)
    )
    inverse = topi.rsqrt(topi.add(variance, tirx.const(epsilon, x.dtype)))
    factor, offset = (topi.reshape(v, [*v.shape, *rest]) for v in (scale, bias))
    return topi.add(topi.multiply(topi.multiply(centred, inverse), factor), offset)


def _legalize_group_norm(builder: Any, call: Any) -> Any:
    data, scale, bias = call.args
    shape = list(data.ty.shape)
    groups, axes = int(call.attrs.num_groups), [int(a) % len(shape) for a in call.attrs.axes]
    if int(call.attrs.channel_axis) % len(shape) != 1 or sorted(axes) != list(range(2, len(shape))):
        return builder.call_te(
            topi.nn.group_norm, *call.args, groups, int(call.attrs.channel_axis), axes, call.attrs.epsilon
        )
    split: Sequence[Any] = [shape[0], groups, shape[1] // groups, *shape[2:]]
    normalized = builder.call_te(
        group_norm,
        builder.emit(relax.op.reshape(data, split)),
        *(builder.emit(relax.op.reshape(v, [groups, shape[1] // groups])) for v in (scale, bias)),
        float(call.attrs.epsilon),
        primfunc_name_hint="group_norm",
    )
    return relax.op.reshape(builder.emit(normalized), shape)


def legalizations() -> dict[str, Callable[[Any, Any], Any]]:
    """What to give to LegalizeOps: the operators that are defined here, and how."""
    return {
        "relax.argmax": _legalize_extreme(largest=True),
        "relax.argmin": _legalize_extreme(largest=False),
        "relax.nn.group_norm": _legalize_group_norm,
    }
