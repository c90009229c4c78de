"""A module whose tensors are of dtypes that a GPU's buffers can have; the host converts inputs and outputs.

8-bit constants that only kernels read are packed, four in a word of int32. Runs on fused kernels that are not
scheduled yet.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.passes.narrow_values import PACKED, ValueNarrower, storage_dtype
from assay.errors import UnsupportedOperatorError

__all__ = ["narrow_storage", "packed_array", "stored_array"]

_KERNEL_CALLS = ("relax.call_tir", "relax.call_tir_inplace")
_EXTREMES = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)


def narrow_storage(module: Any, without: Collection[str]) -> Any:
    """``module`` without tensors of the dtypes in ``without``.

    64-bit integers become 32-bit ones, float64 float32, narrower integers and bool int32. Raises
    UnsupportedOperatorError for a kernel or constant that has no such form.
    """
    if not without:
        return module
    return _Narrower(module, without).run()


def packed_array(array: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """8-bit elements, four in a word: shape [..., ceil(last / 4)], the first in the lowest byte."""
    *outer, last = array.shape
    words = -(-last // PACKED)
    padded = np.zeros((*outer, words * PACKED), np.uint8)
    padded[..., :last] = array.view(np.uint8)
    return padded.view("<i4").astype(np.int32, copy=False)


def stored_array(array: npt.NDArray[Any], without: Collection[str]) -> npt.NDArray[Any]:
    """The same numbers in the dtype in which buffers hold them.

    Raises UnsupportedOperatorError for integers beyond 32 bits; the extremes of int64 are clamped.
    """
    dtype = storage_dtype(str(array.dtype), without)
    if str(array.dtype) in ("int64", "uint64") and dtype != str(array.dtype) and array.size:
        inside = array[(array != _EXTREMES[0]) & (array != _EXTREMES[1])]
        limits = np.iinfo(dtype)
        if inside.size and (int(inside.min()) < limits.min or int(inside.max()) > limits.max):
            raise UnsupportedOperatorError(
                f"A constant of {array.dtype}{list(array.shape)} has values beyond 32 bits."
            )
        array = np.clip(array, limits.min, limits.max)
    return np.asarray(array, dtype, order="C")


@mutator
class _Narrower(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, without: Collection[str]) -> None:
        # Kernels get new global variables, which know the types of their parameters, by their old names.
        graphs = {v: f for v, f in module.functions_items() if isinstance(f, relax.Function)}
        super().__init__(tvm.IRModule(graphs))
        self.module = module
        self.without = without
        self.kernels: dict[tuple[Any, tuple[int, ...]], Any] = {}
        self.constants: dict[tuple[Any, bool], Any] = {}

    def run(self) -> Any:
        graphs = [(v, f) for v, f in self.module.functions_items() if isinstance(f, relax.Function)]
        for _, function in graphs:
            for block in function.body.blocks:
                for binding in block.bindings:
                    self._prepare(binding.value)
        for variable, function in graphs:
            self.builder_.update_func(variable, self._narrowed(function))
        return self.builder_.get()

    def _prepare(self, value: Any) -> None:
        """Convert what ``value`` calls and takes: an error in a visit by TVM would lose its class."""
        if not isinstance(value, tvm.ir.Call):
            return
        if getattr(value.op, "name", "") in _KERNEL_CALLS:
            self._kernel(value.args[0], self._packed_positions(value))
        for argument in (*value.args, *getattr(value.args[-1], "fields", ())):
            self._constant(argument, packed=False)

    def _narrowed(self, function: Any) -> Any:
        params = [self._parameter(param) for param in function.params]
        body = self.visit_expr(function.body)
        return relax.Function(params, body, None, function.is_pure, function.attrs)

    def _parameter(self, param: Any) -> Any:
        fresh = self._type(param.ty)
        if fresh is param.ty:
            return param
        var = relax.Var(param.name, fresh)
        self.set_var_remap(param, var)
        return var

    def _type(self, ty: Any) -> Any:
        if isinstance(ty, relax.TupleType):
            return relax.TupleType([self._type(field) for field in ty.fields])
        if not isinstance(ty, relax.TensorType):
            return ty
        dtype = storage_dtype(str(ty.dtype), self.without)
        return ty if dtype == str(ty.dtype) else relax.TensorType(ty.shape, dtype)

    def visit_generic_const_(self, op: Any) -> Any:
        return self._constant(op, packed=False)

    def _constant(self, op: Any, *, packed: bool) -> Any:
        """The constant in the place of ``op``; ``op`` where it is none, or stays."""
        array = array_of(op)
        if array is None or not (packed or storage_dtype(str(array.dtype), self.without) != str(array.dtype)):
            return op
        if (op, packed) not in self.constants:
            held = packed_array(array) if packed else stored_array(array, self.without)
            self.constants[op, packed] = relax.const(held)
        return self.constants[op, packed]

    def visit_call_(self, call: Any) -> Any:
        name = getattr(call.op, "name", "")
        if name not in _KERNEL_CALLS:
            return super().visit_call_(call)
        packed = self._packed_positions(call)
        arguments = relax.Tuple(
            [
                self._constant(argument, packed=True) if i in packed else self.visit_expr(argument)
                for i, argument in enumerate(call.args[1].fields)
            ]
        )
        kernel = self._kernel(call.args[0], packed)
        outputs = [self._type(ty) for ty in getattr(call.ty_args[0], "fields", call.ty_args)]
        if name == "relax.call_tir":
            return relax.call_tir(kernel, arguments, outputs)
        return relax.call_tir_inplace(
            kernel, arguments, [int(i) for i in call.attrs.inplace_indices], outputs
        )

    def _packed_positions(self, call: Any) -> tuple[int, ...]:
        arrays = [array_of(argument) for argument in call.args[1].fields]
        return tuple(i for i, array in enumerate(arrays) if array is not None and self._packs(array))

    def _packs(self, array: npt.NDArray[Any]) -> bool:
        return (
            array.dtype.name in ("int8", "uint8", "bool")
            and array.dtype.name in self.without
            and array.ndim > 0
            and array.shape[-1] >= PACKED
        )

    def _kernel(self, variable: Any, packed: tuple[int, ...]) -> Any:
        """The kernel on other buffers, made once for each set of parameters that are packed."""
        if (variable, packed) not in self.kernels:
            function = self.module[variable]
            parameters = [function.params[position] for position in packed]
            try:
                narrow = ValueNarrower(self.without, parameters).narrow(function)
            except NotImplementedError as error:
                raise UnsupportedOperatorError(
                    f"The kernel {variable.name_hint} cannot be compiled for this target: {error}."
                ) from error
            self.kernels[variable, packed] = self.builder_.add_func(narrow, str(variable.name_hint))
        return self.kernels[variable, packed]
