"""What becomes of sorts, scans and the CPU's own kernels on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import relax

from assay.compile.passes.device_forms import refuse_scans, to_device_forms
from assay.compile.schedules.recurrent_kernel import SCHEDULED
from assay.compile.schedules.running_sum import running_sum_function
from assay.compile.schedules.top_k import top_k_function
from assay.compile.targets.webgpu import TARGET
from assay.errors import UnsupportedOperatorError

TYPE = relax.TensorType([4, 6], "float32")


def module_of(make: Any) -> Any:
    builder = relax.BlockBuilder()
    x = relax.Var("x", TYPE)
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(make(builder, x))
        builder.emit_func_output(result)
    return builder.get()


@pytest.mark.parametrize("name", ["sort", "argsort", "cumsum", "cumprod"])
def test_scans_of_tvm_are_refused(name: str) -> None:
    module = module_of(lambda builder, x: getattr(relax.op, name)(x, axis=1))
    with pytest.raises(UnsupportedOperatorError, match=rf"known to be right for {name}"):
        refuse_scans(module)


def test_other_operators_pass() -> None:
    module = module_of(lambda builder, x: relax.op.exp(x))
    assert refuse_scans(module) is module


def test_running_sums_and_top_k_are_made_anew_for_the_device() -> None:
    summed = running_sum_function([4, 6], "float32", 1, exclusive=False, reverse=True)
    best = top_k_function([4, 6], "float32", 2, largest=False)

    def make(builder: Any, x: Any) -> Any:
        sums = builder.emit(relax.call_tir(builder.add_func(summed, "running_sum"), [x], out_ty=TYPE))
        types = [relax.TensorType([4, 2], "float32"), relax.TensorType([4, 2], "int64")]
        return relax.call_tir(builder.add_func(best, "top_k"), [sums], out_ty=types)

    module = to_device_forms(module_of(make), TARGET)
    kernels = {v.name_hint: f for v, f in module.functions_items() if v.name_hint != "main"}
    assert list(kernels) == ["running_sum", "top_k"]
    for kernel in kernels.values():
        assert "threadIdx.x" in str(kernel)
        assert "int64" not in {str(p.ty.dtype) for p in kernel.params}
        assert SCHEDULED not in kernel.attrs


def test_a_kernel_for_cpus_without_another_form_is_refused() -> None:
    function = running_sum_function([4, 6], "float32", 1, exclusive=False, reverse=False)
    kernel = function.without_attr("assay.running_sum")
    module = module_of(lambda b, x: relax.call_tir(b.add_func(kernel, "lstm_steps"), [x], out_ty=TYPE))
    with pytest.raises(UnsupportedOperatorError, match="lstm_steps has a kernel for CPUs only"):
        to_device_forms(module, TARGET)
