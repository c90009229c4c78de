"""Make calls of attention over a paged cache calls of kernels that write the cache in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.paged_attention import paged_attention
from assay.compile.schedules.paged_problem import PagedProblem

__all__ = ["PREFIX", "write_cache_in_place"]

# What the importer calls, and this pass replaces; the problem and the place follow as text.
PREFIX = "assay.paged_attention:"


@mutator
class _Converter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, context: ScheduleContext) -> None:
        super().__init__(module)
        self.context = context
        self.kernels: dict[PagedProblem, Any] = {}
        # The value that holds the memory of an operand after the calls so far.
        self.latest: dict[Any, Any] = {}

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.call_dps_packed":
            return call
        name = str(call.args[0].global_symbol) if isinstance(call.args[0], relax.ExternFunc) else ""
        return self._attention(call, name.removeprefix(PREFIX)) if name.startswith(PREFIX) else call

    def _attention(self, call: Any, text: str) -> Any:
        """The output of a kernel that gives the cache too: the next call depends on this one so."""
        problem, place = PagedProblem.from_text(text)
        operands = list(call.args[1].fields)
        written = operands[-2:] if problem.quantized else operands[-1:]
        first = len(operands) - len(written)
        current = [self.latest.get(each, each) for each in written]
        arguments = [*operands[:first], relax.const(np.array(place.numbers(), np.int32)), *current]
        places = [first + 1 + i for i in range(len(written))]
        result = self.builder_.emit(
            relax.op.call_tir_inplace(
                self._kernel(problem), arguments, [-1, *places], [call.ty, *(each.ty for each in written)]
            )
        )
        for i, each in enumerate(written):
            self.latest[each] = self.builder_.emit(relax.TupleGetItem(result, i + 1))
        return relax.TupleGetItem(result, 0)

    def _kernel(self, problem: PagedProblem) -> Any:
        if problem not in self.kernels:
            kernel = paged_attention(problem, self.context)
            self.kernels[problem] = self.builder_.add_func(kernel, "paged_attention")
        return self.kernels[problem]


def write_cache_in_place(module: Any, context: ScheduleContext) -> Any:
    """``module`` with the kernels of attention over the cache, each of which gives the cache to the next."""
    converter = _Converter(module, context)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    return converter.builder_.get()
