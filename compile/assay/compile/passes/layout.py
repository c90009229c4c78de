"""Channels last through the whole graph: each NCHW value gets a twin in NHWC where its consumers want one.

Every operator that is known here computes on the twins of its operands; the NCHW form of its result is only
a transposition of the twin, and is dead code unless something that is not known here reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.schedules.ir import as_int, same_shape

__all__ = ["to_channels_last"]

# Height and width are the last two axes of the first form; five axes are channels in groups.
_TO_LAST = (0, 2, 3, 1)
_TO_LAST_BY_RANK = {4: _TO_LAST, 5: (0, 3, 4, 1, 2)}
_TO_FIRST_BY_RANK = {4: (0, 3, 1, 2), 5: (0, 3, 4, 1, 2)}
_UNARY = frozenset(
    f"relax.{name}"
    for name in (
        "nn.relu", "nn.leakyrelu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "nn.softplus", "sigmoid", "tanh",
        "exp", "log", "sqrt", "rsqrt", "negative", "abs", "clip", "erf", "astype", "square", "floor", "round",
    )
)  # fmt: skip
_BINARY = frozenset(
    f"relax.{name}"
    for name in (
        "add",
        "subtract",
        "multiply",
        "divide",
        "maximum",
        "minimum",
        "power",
        "equal",
        "greater",
        "less",
    )
)
_POOLS = ("relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d")
_REDUCTIONS = ("relax.mean", "relax.sum", "relax.max", "relax.min")


def _ints(values: Any) -> list[int]:
    return [int(v) for v in values]


@mutator
class _ChannelsLast(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.twins: dict[Any, Any] = {}

    def visit_var_binding_(self, binding: Any) -> None:
        value = binding.value
        twin = None
        if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op):
            call = self.builder_.normalize(super().visit_call_(value))
            twin = self._twin_of(call)
        elif isinstance(value, relax.TupleGetItem):
            twin = self._part_of(value)
        if twin is None:
            super().visit_var_binding_(binding)
            return
        last = self.builder_.emit(twin)
        first = relax.op.permute_dims(last, list(_TO_FIRST_BY_RANK[last.ty.ndim]))
        if isinstance(binding.var, relax.DataflowVar):
            first = self.builder_.emit(first, binding.var.name)
        else:
            first = self.builder_.emit_output(first, binding.var.name)
        self.twins[first] = last
        self.set_var_remap(binding.var, first)

    def _twin_of(self, call: Any) -> Any | None:
        """The call in NHWC, or None where it is better left, or not known."""
        if not isinstance(call.ty, relax.TensorType) or call.ty.ndim not in _TO_LAST_BY_RANK:
            return None
        name = call.op.name
        if name == "relax.reshape":
            return self._regrouped(call)
        if name == "relax.permute_dims":
            return self._permuted(call)
        if call.ty.ndim == 5:
            known = name in _UNARY and call.args[0] in self.twins
            return tvm.ir.Call(call.op, [self.twins[call.args[0]]], call.attrs) if known else None
        if name == "relax.nn.conv2d":
            return self._conv2d(call)
        if name in _POOLS:
            return self._pool(call)
        if name == "relax.image.resize2d":
            return self._resize(call)
        operands = call.args[0].fields if name == "relax.concat" else call.args
        if not any(operand in self.twins for operand in operands if isinstance(operand, relax.Var)):
            return None
        if name in _UNARY:
            return tvm.ir.Call(call.op, [self._last(call.args[0])], call.attrs)
        if name in ("relax.quantize", "relax.dequantize"):
            scalars = call.args[1].ty.ndim == 0 and call.args[2].ty.ndim == 0
            return (
                tvm.ir.Call(call.op, [self._last(call.args[0]), *call.args[1:]], call.attrs)
                if scalars
                else None
            )
        if name in _BINARY:
            twins = [self._aligned(arg) for arg in call.args]
            return None if None in twins else tvm.ir.Call(call.op, twins, call.attrs)
        if name == "relax.concat":
            axis = _TO_LAST.index(int(call.attrs.axis) % 4)
            return relax.op.concat([self._last(field) for field in operands], axis)
        if name == "relax.nn.pad":
            widths = _ints(call.attrs.pad_width)
            moved = [w for axis in _TO_LAST for w in widths[2 * axis : 2 * axis + 2]]
            return relax.op.nn.pad(self._last(call.args[0]), moved, call.attrs.pad_mode, _fill_of(call))
        if name == "relax.strided_slice":
            return self._slice(call)
        if name in _REDUCTIONS and call.attrs.keepdims:
            axes = sorted(_TO_LAST.index(axis % 4) for axis in _ints(call.attrs.axis))
            function = getattr(relax.op, name.rpartition(".")[2])
            return function(self._last(call.args[0]), axes, keepdims=True)
        return None

    def _slice(self, call: Any) -> Any | None:
        axes = call.args[1].fields if isinstance(call.args[1], relax.Tuple) else []
        if not axes or not all(isinstance(axis, tvm.tirx.IntImm) for axis in axes):
            return None
        moved = relax.Tuple([tvm.tirx.IntImm("int64", _TO_LAST.index(int(axis) % 4)) for axis in axes])
        return tvm.ir.Call(call.op, [self._last(call.args[0]), moved, *call.args[2:]], call.attrs)

    def _regrouped(self, call: Any) -> Any | None:
        """A reshape that touches the channels alone."""
        source = self.twins.get(call.args[0]) if isinstance(call.args[0], relax.Var) else None
        if source is None or call.ty.shape is None:
            return None
        batch, *channels, height, width = list(call.ty.shape)
        pixels = [batch, height, width]
        if not same_shape(pixels, list(source.ty.shape)[:3]):
            return None
        return relax.op.reshape(source, [*pixels, *channels])

    def _permuted(self, call: Any) -> Any | None:
        """A transposition that moves channels last to first, or one group of channels past the other."""
        operand, rank = call.args[0], call.ty.ndim
        axes = _ints(call.attrs.axes or reversed(range(rank)))
        if axes == list(_TO_FIRST_BY_RANK[rank]) and rank == 4:
            return operand if array_of(operand) is None else None
        if axes == [0, 2, 1, 3, 4] and isinstance(operand, relax.Var) and operand in self.twins:
            return relax.op.permute_dims(self.twins[operand], [0, 1, 2, 4, 3])
        return None

    def _part_of(self, item: Any) -> Any | None:
        """One part of a split along any axis, as a slice."""
        whole = self.visit_expr(item.tuple_value)
        split = self.lookup_binding(whole) if isinstance(whole, relax.Var) else None
        if not isinstance(split, tvm.ir.Call) or getattr(split.op, "name", "") != "relax.split":
            return None
        source = split.args[0]
        if source not in self.twins or source.ty.ndim != 4:
            return None
        axis = int(split.attrs.axis) % 4
        sizes = [as_int(part.shape[axis]) for part in whole.ty.fields[: item.index + 1]]
        if None in sizes:
            return None
        end = sum(size for size in sizes if size is not None)
        start = end - (sizes[-1] or 0)
        return relax.op.strided_slice(self.twins[source], [_TO_LAST.index(axis)], [start], [end])

    def _last(self, operand: Any) -> Any:
        """The NHWC form of a four-dimensional operand."""
        if isinstance(operand, relax.Var) and operand in self.twins:
            return self.twins[operand]
        array = array_of(operand)
        if array is not None:
            return relax.const(np.ascontiguousarray(array.transpose(_TO_LAST)))
        last = self.builder_.emit(relax.op.permute_dims(operand, list(_TO_LAST)))
        if isinstance(operand, relax.Var):
            self.twins[operand] = last
        return last

    def _aligned(self, operand: Any) -> Any | None:
        """An operand of any rank so that it broadcasts against NHWC."""
        rank = operand.ty.ndim
        if rank == 4:
            return self._last(operand)
        if rank == 0:
            return operand
        if rank < 0 or operand.ty.shape is None:
            return None
        shape = [*[1] * (4 - rank), *operand.ty.shape]
        array = array_of(operand)
        if array is not None:
            return self._last(relax.const(array.reshape([int(s) for s in shape])))
        return self._last(self.builder_.emit(relax.op.reshape(operand, shape)))

    def _conv2d(self, call: Any) -> Any | None:
        attrs, weight = call.attrs, self._filters(call.args[1])
        if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW" or weight is None:
            return None
        return relax.op.nn.conv2d(
            self._last(call.args[0]),
            weight,
            strides=_ints(attrs.strides),
            padding=_ints(attrs.padding),
            dilation=_ints(attrs.dilation),
            groups=int(attrs.groups),
            data_layout="NHWC",
            kernel_layout="OHWI",
        )

    def _filters(self, expr: Any) -> Any | None:
        """Constant OIHW filters, or dequantized ones of a quantized model, as OHWI; None for any other."""
        bound = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        source: Any = None
        if isinstance(bound, tvm.ir.Call) and isinstance(bound.op, tvm.ir.Op):
            source = bound if bound.op.name == "relax.dequantize" and int(bound.attrs.axis) == 0 else None
        array = array_of(expr if source is None else source.args[0])
        if array is None:
            return None
        moved = relax.const(np.ascontiguousarray(array.transpose(_TO_LAST)))
        if source is None:
            return moved
        return self.builder_.emit(tvm.ir.Call(source.op, [moved, *source.args[1:]], source.attrs))

    def _pool(self, call: Any) -> Any | None:
        attrs = call.attrs
        if attrs.layout != "NCHW":
            return None
        x = self._last(call.args[0])
        if call.op.name == "relax.nn.adaptive_avg_pool2d":
            size = None if attrs.output_size is None else _ints(attrs.output_size)
            return relax.op.nn.adaptive_avg_pool2d(x, size, layout="NHWC")
        function = getattr(relax.op.nn, call.op.name.rpartition(".")[2])
        return function(
            x,
            pool_size=_ints(attrs.pool_size),
            strides=_ints(attrs.strides),
            padding=_ints(attrs.padding),
            dilation=_ints(attrs.dilation),
            ceil_mode=bool(attrs.ceil_mode),
            count_include_pad=bool(attrs.count_include_pad),
            layout="NHWC",
        )

    def _resize(self, call: Any) -> Any | None:
        attrs = call.attrs
        if attrs.layout != "NCHW" or call.args[0] not in self.twins:
            return None
        return relax.op.image.resize2d(
            self.twins[call.args[0]],
            call.args[1],
            roi=attrs.roi,
            layout="NHWC",
            method=attrs.method,
            coordinate_transformation_mode=attrs.coordinate_transformation_mode,
            rounding_method=attrs.rounding_method,
            cubic_alpha=attrs.cubic_alpha,
            cubic_exclude=attrs.cubic_exclude,
            extrapolation_value=attrs.extrapolation_value,
        )

    def visit_call_(self, call: Any) -> Any:
        """Operators that end the channels-last region but can read a twin directly."""
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or not call.args or not isinstance(call.args[0], relax.Var):
            return call
        twin = self.twins.get(call.args[0])
        if twin is None:
            return call
        if call.op.name == "relax.permute_dims" and call.attrs.axes is not None:
            to_last = _TO_LAST_BY_RANK[twin.ty.ndim]
            axes = [to_last.index(axis) for axis in _ints(call.attrs.axes)]
            return twin if axes == sorted(axes) else relax.op.permute_dims(twin, axes)
        if call.op.name == "relax.reshape" and _is_pixel(twin):
            return relax.op.reshape(twin, call.args[1])
        if call.op.name in _REDUCTIONS and not call.attrs.keepdims and twin.ty.ndim == 4:
            axes = sorted(_TO_LAST.index(axis % 4) for axis in _ints(call.attrs.axis or range(4)))
            if axes == [1, 2]:
                return getattr(relax.op, call.op.name.rpartition(".")[2])(twin, axes, keepdims=False)
        return call


def _fill_of(call: Any) -> float:
    value = call.attrs.pad_value
    return float(getattr(value, "value", value) or 0.0)


def _is_pixel(twin: Any) -> bool:
    """Whether height and width are one, so that both layouts hold the same bytes."""
    shape = twin.ty.shape
    return shape is not None and all(isinstance(s, tvm.tirx.IntImm) and int(s) == 1 for s in list(shape)[1:3])


def to_channels_last(module: Any) -> Any:
    """``module`` with convolutions, pooling and what lies between them in NHWC."""
    converter = _ChannelsLast(module)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    module = relax.transform.CanonicalizeBindings()(converter.builder_.get())
    return relax.transform.DeadCodeElimination()(module)
