"""Kernels of no more buffers than a device binds: fused functions that have more are taken apart again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.utils import copy_with_new_vars

__all__ = ["fuse_within", "split_concatenations"]


def split_concatenations(module: Any, most: int | None) -> Any:
    """``module`` whose concatenations and stacks have fewer than ``most`` operands, beside their result.

    Those of more become several, whose results are joined. None: no limit.
    """
    if most is None:
        return module
    for variable, function in module.functions_items():
        if isinstance(function, relax.Function):
            module.update_func(variable, _Splitter(most - 1).visit_expr(function))
    return relax.transform.Normalize()(module)


@mutator
class _Splitter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        name = getattr(call.op, "name", "")
        if name not in ("relax.concat", "relax.stack") or len(call.args[0].fields) <= self.most:
            return call
        axis, parts = call.attrs.axis, list(call.args[0].fields)
        join = relax.op.stack if name == "relax.stack" else relax.op.concat
        while len(parts) > self.most:
            groups = [parts[i : i + self.most] for i in range(0, len(parts), self.most)]
            parts = [self.builder_.emit(join(group, axis)) for group in groups]
            join = relax.op.concat
        return join(parts, axis)


def fuse_within(module: Any, most: int | None) -> Any:
    """FuseTIR on a ``module`` after FuseOps; what would take more than ``most`` buffers stays apart."""
    fuse = relax.transform.FuseTIR()
    fused = fuse(module)
    if most is None:
        return fused
    large = {
        str(variable.name_hint)
        for variable, function in fused.functions.items()
        if isinstance(function, tirx.PrimFunc) and _buffers(function) > most
    }
    apart = {
        variable: function
        for variable, function in module.functions.items()
        if str(variable.name_hint) in large and isinstance(function, relax.Function)
    }
    return fuse(_Inliner(module, apart).run()) if apart else fused


@mutator
class _Inliner(PyExprMutator):  # type: ignore[misc]
    """Puts the bindings of some functions where they are called."""

    def __init__(self, module: Any, apart: Mapping[Any, Any]) -> None:
        super().__init__(tvm.IRModule({v: f for v, f in module.functions.items() if v not in apart}))
        self.apart = apart

    def run(self) -> Any:
        for variable, function in self.builder_.get().functions_items():
            if isinstance(function, relax.Function) and "Primitive" not in (function.attrs or {}):
                self.builder_.update_func(variable, self.visit_expr(function))
        return relax.transform.CanonicalizeBindings()(self.builder_.get())

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if call.op not in self.apart:
            return call
        function = copy_with_new_vars(self.apart[call.op])
        sizes = {
            extent: size
            for parameter, argument in zip(function.params, call.args, strict=True)
            for extent, size in zip(_extents(parameter.ty), _extents(argument.ty), strict=True)
            if isinstance(extent, tirx.Var)
        }
        function = function.bind_symbolic_vars(sizes)
        for parameter, argument in zip(function.params, call.args, strict=True):
            is_var = isinstance(argument, relax.Var)
            self.set_var_remap(parameter, argument if is_var else self.builder_.emit(argument))
        for block in function.body.blocks:
            for binding in block.bindings:
                self.set_var_remap(binding.var, self.builder_.emit(self.visit_expr(binding.value)))
        return self.visit_expr(function.body.body)


def _extents(ty: Any) -> list[Any]:
    """The sizes of a tensor, or the values of a shape."""
    if isinstance(ty, relax.ShapeType):
        return list(ty.values or ())
    return list(ty.shape or ()) if isinstance(ty, relax.TensorType) else []


def _buffers(function: Any) -> int:
    return sum(isinstance(parameter.ty, tirx.BufferType) for parameter in function.params)
