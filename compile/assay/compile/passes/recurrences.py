"""Turn recurrent operators into a product of all inputs and a kernel that walks the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.recurrence import Recurrence, UnitLayout
from assay.compile.schedules.recurrent_kernel import recurrent_function

__all__ = ["PREFIX", "convert_recurrences"]

# What the importer calls, and this pass replaces; the recurrence follows as text.
PREFIX = "assay.recurrence:"

Array = npt.NDArray[Any]


def _projection(
    recurrence: Recurrence, layout: UnitLayout, weights: Array, bias: Array
) -> tuple[Array, Array]:
    """Weights ``[I, D * N]`` and bias ``[D * N]`` of the inputs' product, in the order of the panels.

    ``weights`` are ONNX's W ``[D, G * H, I]``, ``bias`` its B ``[D, 2 * G * H]``.
    """
    gates, hidden = recurrence.gates, recurrence.hidden
    directions = len(recurrence.reverse)
    split = weights.reshape(directions, gates, hidden, -1).transpose(3, 0, 1, 2)
    offset = bias.reshape(directions, 2, gates, hidden).copy()
    if recurrence.separate_bias is not None:
        offset[:, 1, recurrence.separate_bias] = 0
    columns = layout.interleave(split)
    return columns.reshape(len(columns), -1), layout.interleave(offset.sum(axis=1)).reshape(-1)


def _recurrent_weights(recurrence: Recurrence, layout: UnitLayout, weights: Array) -> list[Array]:
    """ONNX's R ``[D, G * H, H]`` as ``[D, P, H, NR]`` for each phase."""
    split = weights.reshape(len(recurrence.reverse), recurrence.gates, recurrence.hidden, -1)
    packed = []
    for phase in recurrence.phases:
        own = layout.interleave(split[:, list(phase.gates)].transpose(0, 3, 1, 2))
        panels = own.reshape(*own.shape[:2], layout.panels(phase), layout.width(phase))
        packed.append(np.ascontiguousarray(panels.transpose(0, 2, 1, 3)))
    return packed


def _own_bias(recurrence: Recurrence, layout: UnitLayout, bias: Array) -> list[Array]:
    """The recurrent bias of the gate that has it apart, ``[D, padded]``; nothing where none has."""
    gate = recurrence.separate_bias
    if gate is None:
        return []
    own = bias.reshape(len(recurrence.reverse), 2, recurrence.gates, recurrence.hidden)[:, 1, [gate]]
    return [layout.interleave(own).reshape(len(recurrence.reverse), -1)]


@mutator
class _Converter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, context: ScheduleContext) -> None:
        super().__init__(module)
        self.context = context

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.call_dps_packed":
            return call
        name = str(call.args[0].global_symbol) if isinstance(call.args[0], relax.ExternFunc) else ""
        if not name.startswith(PREFIX):
            return call
        return self._recurrence(Recurrence.from_text(name.removeprefix(PREFIX)), call)

    def _recurrence(self, recurrence: Recurrence, call: Any) -> Any:
        x, *constants = list(call.args[1].fields)[:4]
        states = list(call.args[1].fields)[4:]
        weights, recurrent, bias = (array_of(constant) for constant in constants)
        assert weights is not None
        assert recurrent is not None
        assert bias is not None
        layout = UnitLayout.of(recurrence, self.context.unit.lanes())
        columns, offset = _projection(recurrence, layout, weights, bias)
        product = self.builder_.emit(relax.op.matmul(x, relax.const(columns)))
        inputs = self.builder_.emit(relax.op.add(product, relax.const(offset)))
        packed = [
            *_recurrent_weights(recurrence, layout, recurrent), *_own_bias(recurrence, layout, bias)
        ]  # fmt: skip
        time, batch = list(x.ty.shape)[:2]
        kernel = recurrent_function(recurrence, layout, time, batch, self.context)
        variable = self.builder_.add_func(kernel, f"{recurrence.cell.lower()}_steps")
        types = list(call.ty.fields)
        return relax.call_tir(
            variable, [inputs, *(relax.const(array) for array in packed), *states], out_ty=types
        )


def convert_recurrences(module: Any, context: ScheduleContext) -> Any:
    """``module`` with its recurrent operators as products and kernels that keep the steps' order."""
    converter = _Converter(module, context)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    return converter.builder_.get()
