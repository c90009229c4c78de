"""Bind symbolic dimensions to constants, in the graph and in the kernels that it calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.schedules.ir import as_int

__all__ = ["bind_sizes"]


@mutator
class _Specializer(PyExprMutator):  # type: ignore[misc]
    """Gives every call of a kernel a kernel of its own whose symbolic sizes are those of the arguments."""

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.call_tir":
            return call
        variable, arguments = call.args[0], call.args[1]
        function = self.builder_.get()[variable]
        outputs = call.ty.fields if isinstance(call.ty, relax.TupleType) else [call.ty]
        types = [*(argument.ty for argument in arguments.fields), *outputs]
        shapes = _bound_shapes(function, types)
        if not shapes:
            return call
        bound = function.specialize(shapes).without_attr("global_symbol")
        name = self.builder_.add_func(bound, variable.name_hint)
        return relax.call_tir(name, arguments, list(outputs))


def _bound_shapes(function: Any, types: list[Any]) -> dict[Any, Any]:
    """The parameters of a kernel whose symbolic extents the arguments bind, as buffers of those shapes.

    An extent that is symbolic in the argument too stays as the kernel has it.
    """
    shapes: dict[Any, Any] = {}
    for parameter, argument in zip(function.params, types, strict=False):
        if not hasattr(parameter.ty, "shape") or argument.shape is None:
            continue
        extents = list(parameter.ty.shape)
        known = [as_int(size) for size in argument.shape]
        bound = [
            as_int(extent) is None and size is not None for extent, size in zip(extents, known, strict=True)
        ]
        if not any(bound):
            continue
        shape = [
            tirx.IntImm("int64", size) if binds else extent
            for extent, size, binds in zip(extents, known, bound, strict=True)
        ]
        shapes[parameter] = tirx.decl_buffer(shape, parameter.ty.dtype, parameter.name)
    return shapes


def bind_sizes(module: Any, sizes: Mapping[str, int]) -> Any:
    """``module`` with the symbolic dimensions named in ``sizes`` bound to them."""
    module = relax.transform.BindSymbolicVars(dict(sizes))(module)
    specializer = _Specializer(module)
    main = module.get_global_var("main")
    specializer.builder_.update_func(main, specializer.visit_expr(module["main"]))
    return relax.transform.DeadCodeElimination()(specializer.builder_.get())
