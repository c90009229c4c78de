"""The CPU's flavour of a launch plan: a step calls one function of the library.

A kernel of name ``k`` is the C function ``__tvm_ffi_k`` with TVM's packed convention; its parameters are the
arguments of the step in order, tensors as ``DLTensor*`` and scalars as integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, tirx

from assay.compile.plan.extract import Extracted, Extractor
from assay.compile.plan.written import written_parameters
from assay.runtime.plan import Flavour, Kernel, Scalar, Step, Tensor

__all__ = ["build_kernels", "extract_cpu_plan"]


def extract_cpu_plan(module: Any) -> Extracted:
    """The plan of the ``main`` of a scheduled and planned module.

    Raises UnsupportedOperatorError for what needs TVM's virtual machine.
    """

    def call(extractor: Extractor, variable: Any, arguments: Sequence[Tensor | Scalar]) -> None:
        name = str(variable.name_hint)
        written = written_parameters(module[variable])
        for position, argument in enumerate(arguments):
            if isinstance(argument, Tensor) and position in written:
                extractor.note_written(argument)
        numbers = [extractor.number(each) if isinstance(each, Tensor) else each for each in arguments]
        kernel = extractor.add_kernel(Kernel(name=name))
        extractor.steps.append(Step(kernel=kernel, arguments=tuple(numbers)))

    return Extractor(flavour=Flavour.CPU, kernel_call=call).extract(module["main"])


def build_kernels(module: Any, target: Any) -> Any:
    """The kernels of ``module``, without its ``main``, as code for TVM's ``target``."""
    kernels = {v: f for v, f in module.functions.items() if isinstance(f, tirx.PrimFunc)}
    attached = relax.transform.AttachGlobalSymbol()(tvm.IRModule(kernels))
    if str(target.attrs["mtriple"]).startswith("wasm"):
        # Imports are functions then; in a shared library they are pointers, which TVM's loader sets.
        attached = attached.with_attr("system_lib_prefix", "")
    return tvm.tirx.build(attached, target=target)
