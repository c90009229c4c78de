"""Rewrite operators into the few forms that the later passes know."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

__all__ = ["normalize"]

_RESHAPES = ("relax.squeeze", "relax.expand_dims", "relax.flatten")


@mutator
class _Normalizer(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op):
            return call
        name = call.op.name
        if name in _RESHAPES:
            return self._reshape(call)
        if name == "relax.nn.conv1d":
            return self._conv1d(call)
        return call

    def _reshape(self, call: Any) -> Any:
        """Dimensions of one that come and go cost nothing as a reshape, and a copy as an operator."""
        shape = self.builder_.normalize(call).ty.shape
        return call if shape is None else relax.op.reshape(call.args[0], shape)

    def _conv1d(self, call: Any) -> Any:
        """A convolution over one axis as one over two, of height one."""
        attrs = call.attrs
        if attrs.data_layout != "NCW" or attrs.kernel_layout != "OIW":
            return call
        x, weight = (self.builder_.normalize(relax.op.expand_dims(arg, 2)) for arg in call.args)
        left, right = (int(p) for p in attrs.padding)
        wide = relax.op.nn.conv2d(
            self._reshape(x),
            self._reshape(weight),
            strides=(1, int(attrs.strides[0])),
            padding=(0, left, 0, right),
            dilation=(1, int(attrs.dilation[0])),
            groups=int(attrs.groups),
            data_layout="NCHW",
            kernel_layout="OIHW",
        )
        return self._reshape(relax.op.squeeze(self.builder_.emit(wide), 2))


def normalize(module: Any) -> Any:
    """``module`` with squeeze and its like as reshape, and convolutions over one axis as over two."""
    normalizer = _Normalizer(module)
    main = module.get_global_var("main")
    normalizer.builder_.update_func(main, normalizer.visit_expr(module["main"]))
    return normalizer.builder_.get()
