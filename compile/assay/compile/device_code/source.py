"""The source that TVM's generators write for device functions."""

from __future__ import annotations

from typing import Any

from assay.compile.tvm_import import import_tvm

__all__ = ["generated_module", "kernel_names"]


def generated_module(functions: Any, tvm_target: Any) -> Any:
    """What TVM's generator for ``tvm_target`` makes of an IRModule of lowered device functions."""
    build = import_tvm().get_global_func(f"target.build.{tvm_target.kind.name}")
    return build(functions, tvm_target)


def kernel_names(functions: Any) -> tuple[str, ...]:
    """The names of the kernels, in a fixed order."""
    return tuple(sorted(variable.name_hint for variable in functions.functions))
