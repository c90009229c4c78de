"""Concatenations along the last axis that are no copy: each kernel writes its part of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.in_place import STORE_ONCE
from assay.compile.passes.shuffle import count_uses
from assay.compile.schedules.blocks import UnreadableFunctionError, read_function
from assay.compile.schedules.epilogue import split_epilogue
from assay.compile.schedules.in_place import mark_slice
from assay.compile.schedules.ir import as_int, same_shape

__all__ = ["write_into_concat"]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Where a kernel writes: the concatenation, its type, and where the part starts on the last axis."""

    whole: Any
    type: Any
    start: int


def _called(binding: Any) -> Any | None:
    """The call of a kernel with one result that a binding holds."""
    value: Any = getattr(binding, "value", None)
    is_operator = isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op)
    if not is_operator or value.op.name != "relax.call_tir" or len(value.args) != 2:
        return None
    return value if isinstance(binding.var.ty, relax.TensorType) else None


def _widths(function: Any) -> list[int] | None:
    """The last extents of what a PrimFunc concatenates along that axis; None for any other function."""
    try:
        fused = read_function(function)
    except UnreadableFunctionError:
        return None
    *operands, output = fused.params
    if len(fused.blocks) != 1 or fused.blocks[0].name != "T_concat" or len(operands) < 2:
        return None
    leading = list(output.ty.shape)[:-1]
    if not leading or not all(same_shape(list(operand.ty.shape)[:-1], leading) for operand in operands):
        return None
    widths = [as_int(operand.ty.shape[-1]) for operand in operands]
    known = [width for width in widths if width is not None]
    return known if len(known) == len(widths) and sum(known) == as_int(output.ty.shape[-1]) else None


def _stores_through_epilogue(function: Any) -> bool:
    """Whether all that a kernel stores in its output, once each, comes from an anchor's epilogue."""
    try:
        fused = read_function(function)
    except UnreadableFunctionError:
        return False
    anchor = fused.anchor()
    if anchor is None or str(anchor.annotations["assay.schedule"]) not in STORE_ONCE:
        return False
    epilogue, left = split_epilogue(fused, anchor)
    outputs = [block for block in fused.blocks if fused.is_param(block.output)]
    return (
        bool(epilogue.blocks)
        and not left
        and outputs == [fused.blocks[-1]]
        and fused.blocks[-1].output.same_as(fused.params[-1])
        and not any(b.is_reduction and b is not anchor for b in fused.blocks)
    )


def _find_parts(module: Any) -> tuple[dict[Any, _Part], set[Any]]:
    """The values to compute in place, and the concatenations that they make."""
    main = module["main"]
    uses = count_uses(main)
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    made = {binding.var: call for binding in bindings if (call := _called(binding)) is not None}
    parts: dict[Any, _Part] = {}
    wholes: set[Any] = set()
    for variable, call in made.items():
        widths = _widths(module[call.args[0]])
        operands = list(call.args[1].fields)
        if widths is None or not isinstance(variable, relax.DataflowVar) or len(widths) != len(operands):
            continue
        fits = all(
            isinstance(operand, relax.DataflowVar)
            and uses.get(operand) == 1
            and operand in made
            and operand not in parts
            and _stores_through_epilogue(module[made[operand].args[0]])
            for operand in operands
        )
        if fits:
            starts = [sum(widths[:i]) for i in range(len(widths))]
            wholes.add(variable)
            for operand, start in zip(operands, starts, strict=True):
                parts[operand] = _Part(whole=variable, type=variable.ty, start=start)
    return parts, wholes


@mutator
class _Writer(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.module = module
        self.parts, self.wholes = _find_parts(module)
        self.made: dict[Any, Any] = {}

    def visit_var_binding_(self, binding: Any) -> None:
        part = self.parts.get(binding.var)
        if binding.var in self.wholes:
            self.set_var_remap(binding.var, self.made[binding.var])
        elif part is None:
            super().visit_var_binding_(binding)
        else:
            self.made[part.whole] = self.builder_.emit(self._written(binding.value, part))

    def _written(self, call: Any, part: _Part) -> Any:
        """The call of the variant that writes a part; the first one makes the whole, the others go on."""
        width = as_int(part.type.shape[-1]) or 0
        function = mark_slice(self.module[call.args[0]], width, part.start)
        variant = self.builder_.add_func(function, f"{call.args[0].name_hint}_part")
        operands = [self.visit_expr(operand) for operand in call.args[1].fields]
        earlier = self.made.get(part.whole)
        if earlier is None:
            return relax.call_tir(variant, operands, out_ty=part.type)
        return relax.call_tir_inplace(variant, [*operands, earlier], len(operands), [part.type])


def write_into_concat(module: Any) -> Any:
    """``module`` whose kernels write into the concatenation of their results, if nobody else reads them."""
    writer = _Writer(module)
    main = module.get_global_var("main")
    writer.builder_.update_func(main, writer.visit_expr(module["main"]))
    return relax.transform.DeadCodeElimination()(writer.builder_.get())
