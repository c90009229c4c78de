"""Kernels that write into an operand: one that dies at the call, and is read element by element.

TVM's DataflowUseInplaceCalls does this for single operators, before fusion; here it is done after fusion.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.schedules.blocks import (
    Block,
    FusedFunction,
    UnreadableFunctionError,
    loads_of,
    read_function,
)
from assay.compile.schedules.in_place import mark_in_place
from assay.compile.schedules.ir import Buffer, as_int, same_shape

__all__ = ["STORE_ONCE", "plan_in_place"]

# Anchors that store each output once, after its epilogue.
STORE_ONCE = frozenset(
    {
        None,
        "packed_matmul",
        "batched_matmul",
        "conv2d",
        "depthwise_conv2d",
        "shuffled_conv2d",
        "winograd_conv2d",
    }
)


def _is_identity(block: Block, indices: Any) -> bool:
    """Whether ``indices`` are the block's iterators in order."""
    return len(indices) == len(block.spatial) and all(
        index.same_as(var) or (as_int(index) == 0 and as_int(extent) == 1)
        for index, var, extent in zip(indices, block.spatial, block.spatial_extents, strict=True)
    )


def _may_write_into(fused: FusedFunction, operand: Buffer) -> bool:
    """Whether the output may be the operand: element by element, whatever is between the two."""
    *_, output = fused.params
    last = fused.blocks[-1]
    anchor = fused.anchor()
    schedule = None if anchor is None else str(anchor.annotations["assay.schedule"])
    if schedule not in STORE_ONCE or not last.output.same_as(output):
        return False
    if any(block.is_reduction and block is not anchor for block in fused.blocks):
        return False
    carriers = [operand]
    for block in fused.blocks:
        if block is not last and block.output.same_as(output):
            return False
        reads = [a for a in loads_of(block.value) if any(a.source.same_as(c) for c in carriers)]
        if any(access.source.same_as(output) for access in loads_of(block.value)):
            return False
        if not reads and block is not last:
            continue
        if block.is_reduction or not _is_identity(block, block.indices):
            return False
        if not all(_is_identity(block, access.indices) for access in reads):
            return False
        if not same_shape(list(block.output.ty.shape), list(operand.ty.shape)):
            return False
        carriers.append(block.output)
    return True


_KNOWN = ("relax.call_tir", "relax.call_tir_inplace", "relax.reshape")


class _Liveness:
    """When values in memory die: positions of last uses, of the whole of what shares one allocation."""

    def __init__(self, function: Any) -> None:
        self.root: dict[Any, Any] = {}
        self.last: dict[Any, float] = {}
        bindings = [binding for block in function.body.blocks for binding in block.bindings]
        for position, binding in enumerate(bindings):
            self._bind(binding, position)
        self._use(function.body.body, float("inf"))

    def _bind(self, binding: Any, position: int) -> None:
        value: Any = getattr(binding, "value", None)
        if isinstance(value, relax.Var):
            self.root[binding.var] = self.root.get(value)
            return
        is_operator = isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op)
        name = value.op.name if is_operator else ""
        if name == "relax.reshape" and isinstance(value.args[0], relax.Var):
            self.root[binding.var] = self.root.get(value.args[0])
        elif name == "relax.call_tir":
            self.root[binding.var] = binding.var
        elif name == "relax.call_tir_inplace" and isinstance(binding.var.ty, relax.TensorType):
            operand = value.args[1].fields[int(value.attrs.inplace_indices[0])]
            self.root[binding.var] = self.root.get(operand)
        # What a tuple or an operator without a kernel holds, it may hold for ever.
        self._use(value, position if name in _KNOWN else float("inf"))

    def _use(self, value: Any, position: float) -> None:
        def visit(expr: Any) -> None:
            root = self.root.get(expr) if isinstance(expr, relax.Var) else None
            if root is not None:
                self.last[root] = max(self.last.get(root, -1), position)

        if value is not None:
            relax.analysis.post_order_visit(value, visit)


@mutator
class _Planner(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.module = module
        self.liveness = _Liveness(module["main"])
        self.position = -1
        self.variants: dict[tuple[str, int], Any] = {}

    def visit_var_binding_(self, binding: Any) -> None:
        self.position += 1
        super().visit_var_binding_(binding)

    def visit_match_cast_(self, binding: Any) -> None:
        self.position += 1
        super().visit_match_cast_(binding)

    def visit_call_(self, call: Any) -> Any:
        operand = self._dying_operand(call)
        moved = super().visit_call_(call)
        if operand is None:
            return moved
        variant = self._variant(call.args[0], operand)
        return relax.call_tir_inplace(variant, list(moved.args[1].fields), operand, list(moved.ty_args))

    def _dying_operand(self, call: Any) -> int | None:
        """The position of an operand that the result may take the place of."""
        if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.call_tir" or len(call.args) != 2:
            return None
        if not isinstance(call.ty, relax.TensorType) or call.ty.shape is None:
            return None
        operands = list(call.args[1].fields)
        roots = [self.liveness.root.get(item) if isinstance(item, relax.Var) else None for item in operands]
        for position, (operand, root) in enumerate(zip(operands, roots, strict=True)):
            if root is None or self.liveness.last[root] != self.position:
                continue
            if sum(other is not None and other.same_as(root) for other in roots) != 1:
                continue
            if operand.ty.dtype != call.ty.dtype or operand.ty.shape is None:
                continue
            if same_shape(list(operand.ty.shape), list(call.ty.shape)) and self._allows(
                call.args[0], position
            ):
                return position
        return None

    def _allows(self, variable: Any, operand: int) -> bool:
        function = self.module[variable]
        if not isinstance(function, tirx.PrimFunc):
            return False
        try:
            fused = read_function(function)
        except UnreadableFunctionError:
            return False
        return _may_write_into(fused, fused.params[operand])

    def _variant(self, variable: Any, operand: int) -> Any:
        key = (str(variable.name_hint), operand)
        if key not in self.variants:
            function = mark_in_place(self.module[variable], operand)
            self.variants[key] = self.builder_.add_func(function, f"{key[0]}_in_place")
        return self.variants[key]


def plan_in_place(module: Any) -> Any:
    """``module`` whose kernels write into a dying operand where they may.

    Those are variants without a parameter for the output, to which ``schedule_function`` gives their form.
    """
    planner = _Planner(module)
    main = module.get_global_var("main")
    planner.builder_.update_func(main, planner.visit_expr(module["main"]))
    return relax.transform.DeadCodeElimination()(planner.builder_.get())
