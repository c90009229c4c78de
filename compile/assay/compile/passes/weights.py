"""Take the weights out of the graph, so that they live beside the code and are mapped into memory."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of

__all__ = ["extract_weights"]

# Smaller constants stay in the code.
_SMALLEST_BYTES = 64
_KERNEL_CALLS = ("relax.call_tir", "relax.call_tir_inplace")


@mutator
class _Extractor(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, names: dict[Any, str], bundle: Any) -> None:
        super().__init__(module)
        self.positions = {constant: i for i, constant in enumerate(names)}
        self.bundle = bundle

    def visit_generic_const_(self, op: Any) -> Any:
        position = self.positions.get(op)
        return op if position is None else relax.TupleGetItem(self.bundle, position)


def _named_constants(function: Any) -> dict[Any, str]:
    """Constants worth taking out, named after the first kernel that reads them."""
    names: dict[Any, str] = {}
    taken: set[str] = set()

    def visit(expr: Any) -> None:
        if not isinstance(expr, tvm.ir.Call):
            return
        is_kernel = isinstance(expr.op, tvm.ir.Op) and expr.op.name in _KERNEL_CALLS
        owner = expr.args[0].name_hint if is_kernel else "constant"
        operands = expr.args[1] if is_kernel and isinstance(expr.args[1], relax.Tuple) else expr.args
        for i, operand in enumerate(operands):
            array = array_of(operand)
            if array is None or array.nbytes < _SMALLEST_BYTES or operand in names:
                continue
            base = f"{re.sub(r'[^A-Za-z0-9_]', '_', owner)}.{i}"
            name, n = base, 1
            while name in taken:
                n += 1
                name = f"{base}.{n}"
            taken.add(name)
            names[operand] = name

    relax.analysis.post_order_visit(function, visit)
    return names


def extract_weights(module: Any) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """``module`` whose ``main`` takes one more argument, the tuple of its weights, and the weights by name.

    Without weights the module is returned as it is.
    """
    main = module["main"]
    names = _named_constants(main)
    if not names:
        return module, {}
    bundle = relax.Var("weights", relax.TupleType([constant.ty for constant in names]))
    extractor = _Extractor(module, names, bundle)
    body = extractor.visit_expr(main.body)
    function = relax.Function([*main.params, bundle], body, main.ret_ty, main.is_pure, main.attrs)
    extractor.builder_.update_func(module.get_global_var("main"), function)
    arrays = {name: np.ascontiguousarray(array_of(constant)) for constant, name in names.items()}
    return extractor.builder_.get(), arrays
