"""Replace convolutions and matrix products by our tensor expressions over packed operands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of, is_half, stored_array
from assay.compile.passes.shuffle import shuffle_behind
from assay.compile.schedules.choices import Workload, conv2d_workload, packed_matmul_workload
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.conv2d import ConvGeometry, conv2d, pack_filters
from assay.compile.schedules.conv_plan import ConvAlgorithm, ConvPlan, ConvShape, choose_plan, direct_plan
from assay.compile.schedules.depthwise import depthwise_conv2d
from assay.compile.schedules.gemm import batched_matmul, pack_panels, packed_matmul, stored_matmul
from assay.compile.schedules.ir import as_int, same_shape
from assay.compile.schedules.multiply_add import stored_form
from assay.compile.schedules.shuffled_conv2d import ShuffledChannels, pack_shuffled, shuffled_conv2d
from assay.compile.schedules.tiles import choose_panel_width
from assay.compile.schedules.winograd import pack_winograd_filters, winograd_conv2d

__all__ = ["convert_contractions"]

# tvm::relax::OpPatternKind::kOutEWiseFusable: elementwise operators on its output may join it.
OUT_ELEMENTWISE_FUSABLE = 4


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


@mutator
class _Converter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, context: ScheduleContext, winograd: bool) -> None:
        super().__init__(module)
        self.context = context
        self.winograd = winograd

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op):
            return call
        convert = {"relax.nn.conv2d": self._conv2d, "relax.matmul": self._matmul}.get(call.op.name)
        if convert is None:
            return call
        call = self.builder_.normalize(call)
        if str(call.ty.dtype) != "float32" or call.ty.shape is None:
            return call
        replacement = convert(call)
        return call if replacement is None else replacement

    def _rows(self, extents: Any) -> int:
        rows = 1
        for extent in extents:
            rows *= self.context.expected(extent)
        return rows

    def _conv2d(self, call: Any) -> Any | None:
        x, weight = call.args[0], array_of(call.args[1])
        attrs = call.attrs
        if weight is None or attrs.data_layout != "NHWC" or attrs.kernel_layout != "OHWI":
            return None
        geometry = ConvGeometry(
            kernel=_pair(weight.shape[1:3]),
            strides=_pair(attrs.strides),
            dilation=_pair(attrs.dilation),
            padding=_padding(attrs.padding),
            groups=int(attrs.groups),
        )
        channels = weight.shape[0]
        if geometry.groups == channels and weight.shape[3] == 1 and channels > 1:
            filters = relax.const(np.ascontiguousarray(weight[..., 0].transpose(1, 2, 0)))
            return self._call_te(
                depthwise_conv2d, x, filters, geometry=geometry, pattern=OUT_ELEMENTWISE_FUSABLE
            )
        plan = self._plan(call, geometry, weight.shape)
        shuffle = shuffle_behind(x, self.lookup_binding)
        if shuffle is not None and geometry.kernel == (1, 1) and not any(geometry.padding):
            order = ShuffledChannels(groups=geometry.groups, outer=shuffle.outer, inner=shuffle.inner)
            packed = relax.const(pack_shuffled(weight[:, 0, 0], order, plan.panel_width))
            return self._call_te(
                shuffled_conv2d, shuffle.source, packed,
                channels=order, strides=geometry.strides, outputs=channels,
            )  # fmt: skip
        if plan.algorithm != ConvAlgorithm.DIRECT:
            transformed = relax.const(pack_winograd_filters(weight, plan))
            return self._call_te(
                winograd_conv2d, x, transformed, geometry=geometry, channels=channels, plan=plan,
                name=f"{plan.algorithm}_conv2d", pattern=OUT_ELEMENTWISE_FUSABLE,
            )  # fmt: skip
        packed = pack_filters(weight, geometry.groups, plan.panel_width)
        if geometry.is_pointwise:
            return self._call_te(packed_matmul, x, relax.const(packed), cols=channels)
        return self._call_te(conv2d, x, relax.const(packed), geometry=geometry, channels=channels)

    def _plan(self, call: Any, geometry: ConvGeometry, filters: tuple[int, ...]) -> ConvPlan:
        batch, height, width = (self.context.expected(extent) for extent in list(call.ty.shape)[:3])
        shape = ConvShape(
            batch=batch,
            height=height,
            width=width,
            inputs=filters[3],
            outputs=filters[0] // geometry.groups,
            kernel=geometry.kernel,
            unit_steps=geometry.strides == geometry.dilation == (1, 1),
            groups=geometry.groups,
        )
        plan = (choose_plan if self.winograd else direct_plan)(self.context.unit, shape)
        measured = self.context.choice_for(_workload(shape, geometry)).panel_width
        if measured is None or plan.algorithm != ConvAlgorithm.DIRECT:
            return plan
        return replace(plan, panel_width=measured)

    def _matmul(self, call: Any) -> Any | None:
        a, b = call.args
        weight = stored_array(self._bound(b))
        if a.ty.shape is None or b.ty.shape is None or a.ty.ndim < 2 or b.ty.ndim < 2:
            return None
        if weight is not None and weight.ndim == 2:
            rows, (depth, cols) = self._rows(list(a.ty.shape)[:-1]), weight.shape
            chosen = self.context.choice_for(packed_matmul_workload(rows, cols, depth))
            width = chosen.panel_width or choose_panel_width(self.context.unit, rows, cols)
            if is_half(weight):
                return self._stored_matmul(a, weight, width)
            return self._call_te(
                packed_matmul, a, relax.const(pack_panels(weight, width)), cols=weight.shape[1]
            )
        leading = list(call.ty.shape)[:-2]
        # A single row reads B where it is; packing for more copies whole vectors of what is not turned.
        turned = self._turned(b) if as_int(a.ty.shape[-2]) == 1 else None
        a, b = (self._broadcast(operand, leading) for operand in (a, b if turned is None else turned))
        return self._call_te(batched_matmul, a, b, transpose_b=turned is not None)

    def _stored_matmul(self, a: Any, weight: Any, width: int) -> Any:
        """The product with weights of 16 bits, which stay so in the panels."""
        dtype = weight.dtype.name
        packed = relax.const(pack_panels(weight.view(np.uint16), width))
        form = stored_form(self.context.unit, dtype)
        return self._call_te(
            stored_matmul, a, packed, cols=weight.shape[1], dtype=dtype, form=form,
            pattern=OUT_ELEMENTWISE_FUSABLE,
        )  # fmt: skip

    def _bound(self, expr: Any) -> Any:
        bound = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        return expr if bound is None else bound

    def _turned(self, operand: Any) -> Any | None:
        """What ``operand`` is the transposition of, in its last two axes; None where it is none."""
        made_by = self.lookup_binding(operand) if isinstance(operand, relax.Var) else None
        if not isinstance(made_by, relax.Call) or getattr(made_by.op, "name", "") != "relax.permute_dims":
            return None
        last, axes = operand.ty.ndim - 1, made_by.attrs.axes
        turns = axes is not None and _ints(axes) == (*range(last - 1), last, last - 1)
        return made_by.args[0] if turns else None

    def _broadcast(self, operand: Any, leading: Any) -> Any:
        """``operand`` with the leading dimensions of the product."""
        shape = [*leading, *list(operand.ty.shape)[-2:]]
        if same_shape(shape, list(operand.ty.shape)):
            return operand
        return self.builder_.emit(relax.op.broadcast_to(operand, relax.ShapeExpr(shape)))

    def _call_te(
        self,
        function: Any,
        *tensors: Any,
        name: str | None = None,
        pattern: int | None = None,
        **options: Any,
    ) -> Any:
        """Call a tensor expression; ``pattern`` tells fusion what TVM would not recognize."""
        return self.builder_.call_te(
            lambda *args: function(*args, **options),
            *tensors,
            primfunc_name_hint=name or function.__name__,
            primfunc_attrs=None if pattern is None else {"op_pattern": pattern},
        )


def _workload(shape: ConvShape, geometry: ConvGeometry) -> Workload:
    """The workload of a direct convolution, which is a matrix product where it is pointwise."""
    if geometry.is_pointwise:
        return packed_matmul_workload(shape.batch * shape.height * shape.width, shape.outputs, shape.inputs)
    return conv2d_workload(
        (shape.batch, shape.height, shape.width),
        shape.inputs * shape.groups,
        shape.outputs,
        geometry.kernel,
        geometry.strides,
        geometry.dilation,
        shape.groups,
    )


def _pair(values: Any) -> tuple[int, int]:
    first, second = _ints(values)
    return first, second


def _padding(values: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = _ints(values)
    return top, left, bottom, right


def convert_contractions(module: Any, context: ScheduleContext, *, winograd: bool = True) -> Any:
    """``module`` with its NHWC convolutions and matrix products ready for the micro-kernel.

    ``winograd``: whether 3x3 convolutions may trade larger filters for fewer multiplications.
    """
    converter = _Converter(module, context, winograd)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    return converter.builder_.get()
