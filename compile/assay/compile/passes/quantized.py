"""Integer arithmetic where a graph says "dequantize, compute, quantize" (QDQ).

A value that is a dequantized integer is known as that integer: data movement works on the integer, and a
convolution or matrix product with constant weights becomes one of integers with 32-bit sums, which are
rescaled, bounded and quantized again while they are in registers. Integers travel as uint8: an int8 tensor
is the uint8 tensor of the same numbers plus 128, with a zero point larger by 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.passes.quantized_kernels import IntegerKernels
from assay.compile.passes.quantized_values import (
    Addition,
    Integers,
    Sums,
    Weights,
    to_signed,
    to_unsigned,
    with_bias,
)
from assay.compile.schedules import requantize
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.conv2d import ConvGeometry
from assay.compile.schedules.ir import same_shape
from assay.compile.schedules.multiply_add import PairsOf16

__all__ = ["convert_quantized"]

_ELEMENTWISE, _OUT_ELEMENTWISE_FUSABLE = 0, 4  # tvm::relax::OpPatternKind
_MOVES = frozenset(
    f"relax.{name}"
    for name in ("reshape", "permute_dims", "nn.max_pool2d", "squeeze", "expand_dims", "flatten")
)


@mutator
class _Quantized(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, context: ScheduleContext, winograd: bool) -> None:
        super().__init__(module)
        self.kernels = IntegerKernels(context=context, contract=self._contract, winograd=winograd)
        self.reals: dict[Any, Integers] = {}  # by a float32 variable: the integers that it stands for
        self.coded: dict[Any, Integers] = {}  # by a uint8 or int8 variable: what the graph quantized
        self.weights: dict[Any, Weights] = {}
        self.sums: dict[Any, Sums] = {}
        self.additions: dict[Any, Addition] = {}
        self.handlers: dict[str, Callable[[Any], tuple[Any, Any] | None]] = {
            "relax.quantize": self._quantize,
            "relax.dequantize": self._dequantize,
            "relax.nn.conv2d": self._conv2d,
            "relax.matmul": self._matmul,
            "relax.add": self._add,
            "relax.nn.relu": lambda call: self._bounded(call, 0.0, math.inf),
            "relax.maximum": lambda call: self._bounded_by_constant(call, lower=True),
            "relax.minimum": lambda call: self._bounded_by_constant(call, lower=False),
            "relax.concat": self._concat,
            **dict.fromkeys(_MOVES, self._move),
        }

    def visit_var_binding_(self, binding: Any) -> None:
        value = binding.value
        if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op):
            handler = self.handlers.get(value.op.name)
            call = self.builder_.normalize(super().visit_call_(value)) if handler else None
            result = handler(call) if handler else None
            if result is not None:
                expression, fact = result
                if isinstance(binding.var, relax.DataflowVar):
                    new = self.builder_.emit(expression, binding.var.name)
                else:
                    new = self.builder_.emit_output(expression, binding.var.name)
                self._note(new, fact)
                self.set_var_remap(binding.var, new)
                return
        super().visit_var_binding_(binding)

    def _note(self, var: Any, fact: Any) -> None:
        if isinstance(fact, Sums):
            self.sums[var] = fact
        elif isinstance(fact, Addition):
            self.additions[var] = fact
        elif isinstance(fact, Weights):
            self.weights[var] = fact
        elif isinstance(fact, Integers):
            (self.reals if str(var.ty.dtype) == "float32" else self.coded)[var] = fact

    # What the graph says.

    def _quantize(self, call: Any) -> tuple[Any, Any] | None:
        x, scale, zero = call.args[0], array_of(call.args[1]), array_of(call.args[2])
        if scale is None or zero is None or scale.ndim or str(x.ty.dtype) != "float32":
            return None
        dtype = str(call.ty.dtype)
        offset = int(zero) + (128 if dtype == "int8" else 0)
        coded = Integers(q=self._integers(x, float(scale), offset), scale=float(scale), zero=offset)
        if dtype == "uint8":
            return coded.q, coded
        return self._emit(to_signed, coded.q), coded

    def _integers(self, x: Any, scale: float, zero: int) -> Any:
        """``x`` as uint8: the integers it came from, sums rescaled, or its numbers divided and rounded."""
        known = self.reals.get(x)
        if known is not None and (known.scale, known.known_zero) == (scale, known.zero) == (scale, zero):
            return known.q
        sums, addition = self.sums.get(x), self.additions.get(x)
        if addition is not None:
            a, b = addition.a, addition.b
            return self._emit(
                requantize.add_integers, a.q, b.q, scales=(a.scale / scale, b.scale / scale),
                zeros=(a.zero, b.zero), zero=zero, low=addition.low / scale, high=addition.high / scale,
                fits=self.kernels.rounds(512 * (a.scale + b.scale) / scale),
            )  # fmt: skip
        if sums is None:
            return self._emit(requantize.quantize, x, scale=scale, zero=zero, dtype="uint8")
        factor = (sums.factor / np.float32(scale)).astype(np.float32)
        return self._rescaled(
            replace(sums, factor=factor, low=sums.low / scale, high=sums.high / scale), zero
        )

    def _dequantize(self, call: Any) -> tuple[Any, Any] | None:
        x, scale, zero = call.args[0], array_of(call.args[1]), array_of(call.args[2])
        if scale is not None and zero is None and not scale.ndim and str(x.ty.dtype) == "uint8":
            # The zero point is a result of DynamicQuantizeLinear.
            return call, Integers(q=x, scale=float(scale), zero=call.args[2])
        if scale is None or zero is None:
            return None
        values = array_of(x)
        if values is not None:
            weights = Weights(values=values, scale=scale, zero=zero, axis=int(call.attrs.axis))
            return relax.const(weights.real()), weights
        if scale.ndim:
            return None
        dtype = str(x.ty.dtype)
        offset = int(zero) + (128 if dtype == "int8" else 0)
        known = self.coded.get(x)
        q = known.q if known is not None else x if dtype == "uint8" else self._emit(to_unsigned, x)
        return self._real(Integers(q=q, scale=float(scale), zero=offset))

    def _real(self, integers: Integers) -> tuple[Any, Any]:
        call = self._call(requantize.dequantize, integers.q, scale=integers.scale, zero=integers.zero)
        return call, integers

    # Contractions.

    def _conv2d(self, call: Any) -> tuple[Any, Any] | None:
        x, weights, attrs = self.reals.get(call.args[0]), self._weights(call.args[1]), call.attrs
        if x is not None and not isinstance(x.zero, int) and any(int(p) for p in attrs.padding):
            return None
        if x is None or weights is None or attrs.data_layout != "NHWC" or attrs.kernel_layout != "OHWI":
            return None
        vectors = weights.along(0)
        if vectors is None:
            return None
        filters = weights.values
        geometry = ConvGeometry(
            kernel=(filters.shape[1], filters.shape[2]),
            strides=tuple(int(v) for v in attrs.strides),  # type: ignore[arg-type]
            dilation=tuple(int(v) for v in attrs.dilation),  # type: ignore[arg-type]
            padding=tuple(int(v) for v in attrs.padding),  # type: ignore[arg-type]
            groups=int(attrs.groups),
        )
        if geometry.groups > 1 and filters.shape[3] < 4:
            return None
        total, form = self.kernels.conv2d(x, filters, vectors[1], geometry, call.ty.shape)
        return self._summed(total, filters.reshape(len(filters), -1), vectors, x, form)

    def _matmul(self, call: Any) -> tuple[Any, Any] | None:
        x, weights = self.reals.get(call.args[0]), self._weights(call.args[1])
        if x is None or weights is None or weights.values.ndim != 2 or call.args[0].ty.ndim < 2:
            return None
        vectors = weights.along(1)
        if vectors is None:
            return None
        matrix = weights.values
        total, form = self.kernels.matmul(x, matrix, vectors[1], call.ty.shape)
        return self._summed(total, matrix.T, vectors, x, form)

    def _summed(
        self, total: Any, flat: npt.NDArray[Any], vectors: Any, x: Integers, form: Any
    ) -> tuple[Any, Any]:
        """The sums of ``flat`` [N, K] times x, corrected for the zero point where the kernel does not."""
        scale, zero = vectors
        shift = getattr(form, "shift", 0)
        bias = (shift * flat.astype(np.int64).sum(1)).astype(np.int32)
        if not isinstance(x.zero, int):
            sums_of_weights = flat.astype(np.int64).sum(1) - zero.astype(np.int64) * flat.shape[1]
            columns = relax.const(sums_of_weights.astype(np.int32))
            total = self._emit(requantize.less_zero, total, x.zero, columns)
        elif not isinstance(form, PairsOf16):
            bias = ((shift - x.zero) * flat.astype(np.int64).sum(1)).astype(np.int32)
        sums = Sums(total=total, bias=bias, factor=(np.float32(x.scale) * scale).astype(np.float32))
        return self._rescaled(sums, None, emit=False), sums

    def _weights(self, expr: Any) -> Weights | None:
        return self.weights.get(expr) if isinstance(expr, relax.Var) else None

    # What follows a contraction.

    def _add(self, call: Any) -> tuple[Any, Any] | None:
        for x, other in (call.args, reversed(call.args)):
            sums = self.sums.get(x)
            biased = None if sums is None else with_bias(sums, self._array(other))
            if biased is not None and call.ty.ndim == x.ty.ndim:
                return self._rescaled(biased, None, emit=False), biased
        a, b = (self.reals.get(operand) for operand in call.args)
        if a is not None and b is not None:
            same = same_shape(*(list(arg.ty.shape) for arg in call.args))
            if same and isinstance(a.zero, int) and isinstance(b.zero, int):
                return self._added(Addition(a=a, b=b))
        for x, other in (call.args, reversed(call.args)):
            integers = self.reals.get(other)
            known = integers is not None and isinstance(integers.zero, int)
            if integers is not None and known and same_shape(list(x.ty.shape), list(other.ty.shape)):
                source = integers.q
                call_te = self._call(
                    requantize.add_dequantized, x, source, scale=integers.scale, zero=integers.zero
                )
                return call_te, None
        return None

    def _added(self, addition: Addition) -> tuple[Any, Any]:
        a, b = addition.a, addition.b
        call = self._call(
            requantize.add_integers, a.q, b.q, scales=(a.scale, b.scale), zeros=(a.zero, b.zero),
            zero=None, low=addition.low, high=addition.high,
        )  # fmt: skip
        return call, addition

    def _array(self, expr: Any) -> npt.NDArray[Any] | None:
        bound = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        return array_of(expr if bound is None else bound)

    def _bounded(self, call: Any, low: float, high: float) -> tuple[Any, Any] | None:
        x = call.args[0]
        addition = self.additions.get(x)
        if addition is not None:
            return self._added(replace(addition, low=max(addition.low, low), high=min(addition.high, high)))
        sums = self.sums.get(x)
        if sums is None:
            return None
        bounded = replace(sums, low=min(max(sums.low, low), high), high=max(min(sums.high, high), low))
        return self._rescaled(bounded, None, emit=False), bounded

    def _bounded_by_constant(self, call: Any, *, lower: bool) -> tuple[Any, Any] | None:
        limit = array_of(call.args[1])
        if limit is None or limit.size != 1:
            return None
        value = float(limit.item())
        return self._bounded(call, value if lower else -math.inf, math.inf if lower else value)

    # Operators that only move numbers.

    def _move(self, call: Any) -> tuple[Any, Any] | None:
        x = call.args[0]
        weights = self._weights(x)
        if weights is not None and call.op.name == "relax.permute_dims":
            axes = call.attrs.axes
            order = (
                tuple(int(a) for a in axes) if axes is not None else tuple(range(weights.values.ndim))[::-1]
            )
            moved = weights.transposed(order)
            return relax.const(moved.real()), moved
        integers = self.reals.get(x)
        if integers is None or not isinstance(integers.zero, int):
            return None
        q = self.builder_.emit(tvm.ir.Call(call.op, [integers.q, *call.args[1:]], call.attrs))
        return self._real(replace(integers, q=q))

    def _concat(self, call: Any) -> tuple[Any, Any] | None:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
        known = [self.reals.get(field) for field in fields]
        first = known[0] if known else None
        if (
            first is None
            or not isinstance(first.zero, int)
            or any(k is None or (k.scale, k.zero) != (first.scale, first.zero) for k in known)
        ):
            return None
        q = self.builder_.emit(relax.op.concat([k.q for k in known if k is not None], int(call.attrs.axis)))
        return self._real(replace(first, q=q))

    # Tensor expressions.

    def _rescaled(self, sums: Sums, zero: int | None, *, emit: bool = True) -> Any:
        vectors = [relax.const(sums.bias)] if sums.bias.any() else []
        call = self._call(
            requantize.rescale, sums.total, *vectors, relax.const(sums.factor),
            zero=zero, low=sums.low, high=sums.high,
            fits=self.kernels.rounds(2.0**31 * float(np.abs(sums.factor).max(initial=0))),
        )  # fmt: skip
        return self.builder_.emit(call) if emit else call

    def _contract(self, function: Any, *tensors: Any, **options: Any) -> Any:
        return self.builder_.emit(self._call(function, *tensors, pattern=_OUT_ELEMENTWISE_FUSABLE, **options))

    def _emit(self, function: Any, *tensors: Any, **options: Any) -> Any:
        return self.builder_.emit(self._call(function, *tensors, **options))

    def _call(self, function: Any, *tensors: Any, pattern: int | None = None, **options: Any) -> Any:
        return self.builder_.call_te(
            lambda *args: function(*args, **options),
            *tensors,
            primfunc_name_hint=function.__name__.lstrip("_"),
            primfunc_attrs=None if pattern is None else {"op_pattern": pattern},
        )


def convert_quantized(module: Any, context: ScheduleContext, *, winograd: bool = True) -> Any:
    """``module``, channels last, with integer arithmetic in place of what QDQ pairs surround.

    ``winograd``: whether 3x3 convolutions may trade larger filters for fewer multiplications.
    """
    converter = _Quantized(module, context, winograd)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    module = relax.transform.CanonicalizeBindings()(converter.builder_.get())
    return relax.transform.DeadCodeElimination()(module)
