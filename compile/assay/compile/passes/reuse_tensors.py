"""One tensor for all values that are planned into the same storage with the same shape.

The virtual machine makes a shape and a tensor for each value of every kernel, and drops them again. The
layers of a model are alike, and one view of the storage serves them all.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

__all__ = ["reuse_tensors"]


class _Reuser:
    """Rewrites bindings in order; ``values`` is what stands for a variable from there on."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.tensors: dict[tuple[Any, ...], Any] = {}
        self.tuples: dict[Any, Any] = {}

    def binding(self, binding: Any) -> Any | None:
        """A binding over what its operands stand for; None where its variable stands for another."""
        if not isinstance(binding, relax.VarBinding):
            return binding
        value = self.expression(binding.value)
        stands_for = self._stands_for(value)
        if stands_for is not None:
            self.values[binding.var] = stands_for
            return None
        if isinstance(value, relax.Tuple):
            self.tuples[binding.var] = value
        key = _key(value)
        if key is not None:
            self.tensors[key] = binding.var
        return binding if value is binding.value else relax.VarBinding(binding.var, value)

    def _stands_for(self, value: Any) -> Any | None:
        if isinstance(value, relax.Var):
            return value
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.tuples:
            return self.tuples[value.tuple_value].fields[int(value.index)]
        return self.tensors.get(_key(value))  # type: ignore[arg-type]

    def expression(self, value: Any) -> Any:
        """A value whose operands are replaced; the same object where none is."""
        if isinstance(value, relax.Var):
            return self.values.get(value, value)
        if isinstance(value, relax.Tuple):
            fields = [self.expression(each) for each in value.fields]
            return value if _same(fields, value.fields) else relax.Tuple(fields)
        if isinstance(value, tvm.ir.Call):
            operands = [self.expression(each) for each in value.args]
            if _same(operands, value.args):
                return value
            return tvm.ir.Call(
                value.op, operands, value.attrs, list(value.ty_args), value.span, ret_ty=value.ty
            )
        return value


def _same(one: Any, other: Any) -> bool:
    return all(a.same_as(b) for a, b in zip(one, other, strict=True))


def _key(value: Any) -> tuple[Any, ...] | None:
    """What makes two tensors the same: storage, offset, shape and dtype. None for all else."""
    is_operator = isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op)
    if not is_operator or value.op.name != "relax.memory.alloc_tensor":
        return None
    storage, *rest = value.args
    return (storage, *(str(each) for each in rest))


@tvm.transform.module_pass(opt_level=0, name="ReuseTensors")  # type: ignore[untyped-decorator]
def reuse_tensors(module: Any, _context: Any) -> Any:
    """A pass behind the memory plan: values of one storage and shape share one tensor."""
    variable = module.get_global_var("main")
    main, reuser = module["main"], _Reuser()
    blocks = [
        relax.BindingBlock([each for each in map(reuser.binding, block.bindings) if each is not None])
        for block in main.body.blocks
    ]
    body = relax.SeqExpr(blocks, reuser.expression(main.body.body))
    module.update_func(variable, relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs))
    return _without_unread_tuples(module, variable)


def _without_unread_tuples(module: Any, variable: Any) -> Any:
    """``module`` less the tuples that nothing reads any more."""
    main = module[variable]
    read: set[Any] = set()

    def note(expr: Any) -> None:
        operands = expr.args if isinstance(expr, tvm.ir.Call) else []
        operands = [expr.tuple_value] if isinstance(expr, relax.TupleGetItem) else operands
        read.update(each for each in operands if isinstance(each, relax.Var))

    relax.analysis.post_order_visit(main, note)
    read.add(main.body.body)
    blocks = [
        relax.BindingBlock(
            [b for b in block.bindings if not isinstance(b.value, relax.Tuple) or b.var in read]
        )
        for block in main.body.blocks
    ]
    body = relax.SeqExpr(blocks, main.body.body)
    module.update_func(variable, relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs))
    return module
