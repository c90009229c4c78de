"""Names of a model's inputs as identifiers: generators of source write them into code as they are."""

from __future__ import annotations

import re
from typing import Any

from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

__all__ = ["name_inputs_plainly"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@mutator
class _Renamer(PyExprMutator):  # type: ignore[misc]
    def renamed(self, main: Any) -> Any:
        parameters = []
        taken = {str(parameter.name) for parameter in main.params}
        for parameter in main.params:
            name = str(parameter.name)
            if not _PLAIN.fullmatch(name):
                plain = "input_" + re.sub(r"[^A-Za-z0-9]+", "_", name)
                while plain in taken:
                    plain += "_"
                taken.add(plain)
                fresh = relax.Var(plain, parameter.ty)
                self.set_var_remap(parameter, fresh)
                parameter = fresh
            parameters.append(parameter)
        return relax.Function(parameters, self.visit_expr(main.body), main.ret_ty, main.is_pure, main.attrs)


def name_inputs_plainly(module: Any) -> Any:
    """``module`` whose ``main`` has parameters that are named with letters, digits and underscores."""
    renamer = _Renamer(module)
    renamer.builder_.update_func(module.get_global_var("main"), renamer.renamed(module["main"]))
    return renamer.builder_.get()
