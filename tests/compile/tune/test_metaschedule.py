"""Kernels that no schedule of ours matches: TVM's own search, and what a build makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.lower import Lowered, lower
from assay.compile.profiles import profiles
from assay.compile.schedules.choices import Tuning
from assay.compile.targets import targets

SHAPE = (96, 200)


def unknown_reduction(tvm: Any) -> Any:
    """A model of one operator: the parity along rows (exclusive or), which no schedule knows to reduce."""
    from tvm import relax, te, tirx

    parity = te.comm_reducer(lambda x, y: x ^ y, lambda dtype: tirx.const(0, dtype), name="parity")

    def compute(x: Any) -> Any:
        k = te.reduce_axis((0, SHAPE[1]), "k")
        return te.compute((SHAPE[0],), lambda i: parity(x[i, k], axis=k), name="parity")

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(SHAPE, "int32"))
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            output = builder.emit_output(builder.call_te(compute, x, primfunc_name_hint="parity"))
        builder.emit_func_output(output)
    return builder.get()


def lowered(tvm: Any, tuning: Tuning | None = None) -> Lowered:
    return lower(
        unknown_reduction(tvm),
        target=targets()["x86-64-v3"],
        profile=profiles()["release"],
        sizes={},
        maxima={},
        tuning=tuning,
    )


def output(tvm: Any, code: Lowered) -> Any:
    x = np.random.default_rng(0).integers(0, 1 << 30, SHAPE, dtype=np.int32)
    machine = tvm.relax.VirtualMachine(code.executable, tvm.cpu())
    found = machine["main"](tvm.runtime.tensor(x)).numpy()
    np.testing.assert_array_equal(found, np.bitwise_xor.reduce(x, axis=1))
    return found


def test_a_kernel_without_a_schedule_keeps_the_loops_of_tvm(tvm: Any, needs_avx2: None) -> None:
    code = lowered(tvm)
    assert code.unscheduled == ("parity",)
    output(tvm, code)


def test_a_form_that_was_found_takes_their_place(tvm: Any, needs_avx2: None) -> None:
    from assay.compile.schedules.forms import form_key

    function = unknown_reduction(tvm)["parity"]
    schedule = tvm.s_tir.Schedule(function)
    (loop, _) = schedule.get_loops(schedule.get_sblock("parity"))
    schedule.parallel(loop)
    kept: dict[str, str] = {}

    class Forms(dict[str, str]):
        """Gives the form for whatever kernel is asked for, and notes its key."""

        def get(self, key: str, default: Any = None) -> Any:
            kept[key] = tvm.ir.save_json(schedule.mod["main"])
            return kept[key]

    forms = Forms({"any": ""})
    code = lowered(tvm, Tuning(choices={}, forms=forms))
    assert code.unscheduled == ()
    output(tvm, code)
    assert len(kept) == 1
    assert lowered(tvm, Tuning(choices={}, forms={"another": "x"})).unscheduled == ("parity",)
    assert form_key(function) == form_key(function.with_attr("global_symbol", "renamed"))


@pytest.mark.slow
def test_metaschedule_finds_a_form_with_the_same_numbers(tvm: Any, needs_avx2: None) -> None:
    # The stock builder gives nothing here: all of its candidates time out.
    from tvm import te

    from assay.compile.lower import llvm_target
    from assay.compile.tune.metaschedule import search_apart

    a, b = te.placeholder((64, 512), name="a"), te.placeholder((512, 64), name="b")
    k = te.reduce_axis((0, 512), "k")
    product = te.compute((64, 64), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="product")
    target = targets()["x86-64-v3"]
    found = search_apart(te.create_prim_func([a, b, product]), target, seconds=60)
    assert found is not None
    module = tvm.IRModule({"main": tvm.ir.load_json(found[0]).with_attr("global_symbol", "main")})
    generator = np.random.default_rng(0)
    x, y = (generator.standard_normal(shape, dtype=np.float32) for shape in ((64, 512), (512, 64)))
    arguments = [tvm.runtime.tensor(array) for array in (x, y, np.zeros((64, 64), np.float32))]
    tvm.compile(module, target=llvm_target(target))["main"](*arguments)
    np.testing.assert_allclose(arguments[2].numpy(), x @ y, rtol=1e-4, atol=1e-3)
