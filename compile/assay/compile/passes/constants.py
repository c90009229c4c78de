"""Fold data movement on constants with NumPy: TVM's own folding compiles a kernel for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

if TYPE_CHECKING:
    from assay.compile.passes.graph import Graph

__all__ = [
    "array_of",
    "fold_constant_movement",
    "half_weights_of_products",
    "is_half",
    "moved_array",
    "stored_array",
]


def array_of(expr: Any) -> npt.NDArray[Any] | None:
    """The array behind a constant expression, or None."""
    value = getattr(expr, "value", None)
    if isinstance(expr, tvm.ir.GenericConst) and value is not None and hasattr(value, "numpy"):
        array: npt.NDArray[Any] = value.numpy()
        return array
    return None


def is_half(array: npt.NDArray[Any] | None) -> bool:
    """Whether numbers are stored as float16 or bfloat16."""
    return array is not None and array.dtype.name in ("float16", "bfloat16")


def stored_array(expr: Any) -> npt.NDArray[Any] | None:
    """The array behind a constant, or behind the cast to float32 of one of 16 bits; None for the rest."""
    if isinstance(expr, tvm.ir.Call) and getattr(expr.op, "name", "") == "relax.astype":
        array = array_of(expr.args[0])
        return array if is_half(array) and str(expr.attrs.dtype) == "float32" else None
    return array_of(expr)


def _static_shape(expr: Any) -> tuple[int, ...] | None:
    shape = expr.ty.shape
    if shape is None or not all(isinstance(s, tvm.tirx.IntImm) for s in shape):
        return None
    return tuple(int(s) for s in shape)


def moved_array(call: Any, array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """What ``call`` makes of a constant, where it only moves or converts elements; else None."""
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


def half_weights_of_products(graph: Graph) -> set[Any]:
    """The variables of weights of 16 bits that only matrix products read, moved or not."""
    from assay.compile.passes.graph import is_call

    def serves(var: Any) -> bool:
        users = graph.users(var)
        return bool(users) and not graph.is_output(var) and all(reads(user, var) for user in users)

    def reads(user: Any, var: Any) -> bool:
        value = graph.values[user]
        if is_call(value, "permute_dims", "reshape"):
            return serves(user)
        return is_call(value, "matmul") and value.args[1].same_as(var) and var.ty.ndim == 2

    found: set[Any] = set()
    for var, value in graph.values.items():
        stored = is_call(value, "astype") and is_half(stored_array(value))
        moved = is_call(value, "permute_dims", "reshape") and value.args[0] in found
        if (stored or moved) and serves(var):
            found.add(var)
    return found


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, kept: set[Any]) -> None:
        super().__init__(module)
        self.kept = kept
        self.stored: dict[Any, npt.NDArray[Any]] = {}

    def visit_var_binding_(self, binding: Any) -> None:
        if binding.var not in self.kept:
            super().visit_var_binding_(binding)
            return
        value = binding.value
        array = stored_array(value)
        if array is None:
            array = moved_array(value, self.stored[value.args[0]])
        assert array is not None
        self.stored[binding.var] = array
        cast = relax.op.astype(relax.const(np.asarray(array, order="C")), "float32")
        self.set_var_remap(binding.var, self.builder_.emit(cast, binding.var.name))

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or not call.args:
            return call
        array = array_of(self._constant(call.args[0]))
        if array is None:
            return call
        call = self.builder_.normalize(call)
        moved = moved_array(call, array)
        return call if moved is None else relax.const(np.asarray(moved, order="C"))

    def _constant(self, expr: Any) -> Any:
        bound = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        return expr if bound is None else bound


def fold_constant_movement(module: Any) -> Any:
    """``module`` with permute_dims, reshape and casts of constants evaluated.

    Weights of matrix products that are stored in 16 bits stay so, behind a cast to float32.
    """
    from assay.compile.passes.graph import Graph

    folder = _Folder(module, half_weights_of_products(Graph(module["main"])))
    for variable, function in module.functions.items():
        if isinstance(function, relax.Function):
            folder.builder_.update_func(variable, folder.visit_expr(function))
    module = relax.transform.CanonicalizeBindings()(folder.builder_.get())
    return relax.transform.DeadCodeElimination()(module)
