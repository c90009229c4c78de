"""Channel shuffles moved to where they cost nothing.

A shuffle is, in NHWC, a reshape of the channels to ``[A, B]``, a transposition of the two and a reshape back:
channel ``a * B + b`` goes to ``b * A + a`` (Zhang et al., "ShuffleNet", CVPR 2018). What treats every channel
alike commutes with it once its own constants are reordered, so the shuffle moves down the graph until a
convolution that sums over channels takes it into its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.schedules.ir import same_shape

__all__ = ["Shuffle", "count_uses", "shuffle_behind", "sink_shuffles"]

_SWAP = [0, 1, 2, 4, 3]
_POOLS = ("relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d")
_UNARY = ("relax.nn.relu", "relax.nn.leakyrelu", "relax.sigmoid", "relax.tanh", "relax.clip")
_BINARY = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.maximum", "relax.minimum")


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """``source`` [N, H, W, outer * inner], whose channel a * inner + b is the result's b * outer + a."""

    source: Any
    outer: int
    inner: int

    def order(self) -> npt.NDArray[np.int64]:
        """For each channel of the source, its place in the result."""
        return np.arange(self.outer * self.inner).reshape(self.inner, self.outer).T.reshape(-1)


def _bound_call(expr: Any, name: str, bound: Callable[[Any], Any]) -> Any | None:
    value = bound(expr) if isinstance(expr, relax.Var) else expr
    if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op) and value.op.name == name:
        return value
    return None


def shuffle_behind(expr: Any, bound: Callable[[Any], Any]) -> Shuffle | None:
    """The shuffle that gives ``expr``; ``bound`` looks up the value of a variable."""
    merged = _bound_call(expr, "relax.reshape", bound)
    swapped = None if merged is None else _bound_call(merged.args[0], "relax.permute_dims", bound)
    split = None if swapped is None else _bound_call(swapped.args[0], "relax.reshape", bound)
    if split is None or merged is None or swapped is None or swapped.attrs.axes is None:
        return None
    source, wide = split.args[0], split.ty.shape
    if [int(axis) for axis in swapped.attrs.axes] != _SWAP or source.ty.ndim != 4 or merged.ty.ndim != 4:
        return None
    if not same_shape(list(merged.ty.shape), list(source.ty.shape)):
        return None
    *pixels, outer, inner = list(wide)
    if not all(isinstance(n, tvm.tirx.IntImm) for n in (outer, inner, source.ty.shape[3])):
        return None
    if not same_shape(pixels, list(source.ty.shape)[:3]):
        return None
    return Shuffle(source=source, outer=int(outer), inner=int(inner))


@mutator
class _Sinker(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, uses: dict[Any, int]) -> None:
        super().__init__(module)
        self.uses = uses

    def visit_call_(self, call: Any) -> Any:
        operands = call.args
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or not operands:
            return call
        shuffles = [
            shuffle_behind(new, self.lookup_binding) if self.uses.get(old, 0) == 1 else None
            for old, new in zip(operands, call.args, strict=True)
        ]
        first = next((shuffle for shuffle in shuffles if shuffle is not None), None)
        if first is None:
            return call
        if call.op.name == "relax.nn.conv2d":
            return self._conv2d(call, first)
        if (call.op.name in _POOLS and call.attrs.layout == "NHWC") or call.op.name in _UNARY:
            return self._after(first, tvm.ir.Call(call.op, [first.source, *call.args[1:]], call.attrs))
        if call.op.name in _BINARY and len(call.args) == 2:
            return self._binary(call, shuffles, first)
        return call

    def _after(self, shuffle: Shuffle, call: Any) -> Any:
        """The shuffle of what ``call`` computes from its source."""
        value = self.builder_.emit(call)
        pixels = list(value.ty.shape)[:3]
        split = self.builder_.emit(relax.op.reshape(value, [*pixels, shuffle.outer, shuffle.inner]))
        swapped = self.builder_.emit(relax.op.permute_dims(split, _SWAP))
        return relax.op.reshape(swapped, value.ty.shape)

    def _conv2d(self, call: Any, shuffle: Shuffle) -> Any:
        weight = array_of(call.args[1])
        if weight is None or call.attrs.kernel_layout != "OHWI" or call.attrs.data_layout != "NHWC":
            return call
        order, groups = shuffle.order(), int(call.attrs.groups)
        if groups == 1:
            moved = relax.const(np.ascontiguousarray(weight[..., order]))
            return tvm.ir.Call(call.op, [shuffle.source, moved], call.attrs)
        if groups == len(order) == weight.shape[0]:
            moved = relax.const(np.ascontiguousarray(weight[order]))
            return self._after(shuffle, tvm.ir.Call(call.op, [shuffle.source, moved], call.attrs))
        return call

    def _binary(self, call: Any, shuffles: list[Shuffle | None], first: Shuffle) -> Any:
        operands = []
        for operand, shuffle in zip(call.args, shuffles, strict=True):
            array = array_of(operand)
            if shuffle is not None and (shuffle.outer, shuffle.inner) == (first.outer, first.inner):
                operands.append(shuffle.source)
            elif array is not None and (array.ndim == 0 or array.shape[-1] == 1):
                operands.append(operand)
            elif array is not None:
                operands.append(relax.const(np.ascontiguousarray(array[..., first.order()])))
            else:
                return call
        result = relax.op.__dict__[call.op.name.rpartition(".")[2]](*operands)
        if not same_shape(list(self.builder_.normalize(result).ty.shape), list(first.source.ty.shape)):
            return call
        return self._after(first, result)


def count_uses(function: Any) -> dict[Any, int]:
    """How often each variable is an operand, a field of a tuple or the result."""
    uses: dict[Any, int] = {}

    def visit(expr: Any) -> None:
        if isinstance(expr, tvm.ir.Call):
            operands = [*expr.args]
        elif isinstance(expr, relax.Tuple):
            operands = [*expr.fields]
        elif isinstance(expr, relax.SeqExpr):
            operands = [expr.body]
        else:
            return
        for operand in operands:
            if isinstance(operand, relax.Var):
                uses[operand] = uses.get(operand, 0) + 1

    relax.analysis.post_order_visit(function, visit)
    return uses


def sink_shuffles(module: Any) -> Any:
    """``module``, channels last, with each channel shuffle behind what commutes with it."""
    main = module.get_global_var("main")
    sinker = _Sinker(module, count_uses(module["main"]))
    sinker.builder_.update_func(main, sinker.visit_expr(module["main"]))
    module = relax.transform.CanonicalizeBindings()(sinker.builder_.get())
    return relax.transform.DeadCodeElimination()(module)
