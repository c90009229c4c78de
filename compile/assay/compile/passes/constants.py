"""Fold data movement on constants with NumPy: TVM's own folding compiles a kernel for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

__all__ = ["array_of", "fold_constant_movement"]


def array_of(expr: Any) -> npt.NDArray[Any] | None:
    """The array behind a constant expression, or None."""
    value = getattr(expr, "value", None)
    if isinstance(expr, tvm.ir.GenericConst) and value is not None and hasattr(value, "numpy"):
        array: npt.NDArray[Any] = value.numpy()
        return array
    return None


def _static_shape(expr: Any) -> tuple[int, ...] | None:
    shape = expr.ty.shape
    if shape is None or not all(isinstance(s, tvm.tirx.IntImm) for s in shape):
        return None
    return tuple(int(s) for s in shape)


def _moved(call: Any, array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    name = call.op.name
    if name == "relax.permute_dims":
        axes = call.attrs.axes
        return np.transpose(array, None if axes is None else [int(a) for a in axes])
    if name in ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten"):
        shape = _static_shape(call)
        return None if shape is None else array.reshape(shape)
    if name == "relax.astype":
        return array.astype(str(call.ty.dtype))
    return None


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or not call.args:
            return call
        array = array_of(self._constant(call.args[0]))
        if array is None:
            return call
        call = self.builder_.normalize(call)
        moved = _moved(call, array)
        return call if moved is None else relax.const(np.asarray(moved, order="C"))

    def _constant(self, expr: Any) -> Any:
        bound = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        return expr if bound is None else bound


def fold_constant_movement(module: Any) -> Any:
    """``module`` with permute_dims, reshape and casts of constants evaluated."""
    folder = _Folder(module)
    for variable, function in module.functions.items():
        if isinstance(function, relax.Function):
            folder.builder_.update_func(variable, folder.visit_expr(function))
    module = relax.transform.CanonicalizeBindings()(folder.builder_.get())
    return relax.transform.DeadCodeElimination()(module)
