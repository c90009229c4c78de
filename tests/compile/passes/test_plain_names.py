"""Inputs whose names are no identifiers."""

from __future__ import annotations

from typing import Any


def test_names_become_identifiers_that_are_not_taken(tvm: Any) -> None:
    from tvm import relax

    from assay.compile.passes.plain_names import name_inputs_plainly

    kind = relax.TensorType((3,), "float32")
    names = ["gpu_0/data", "input_gpu_0_data", "plain", "3d"]
    values = [relax.Var(name, kind) for name in names]
    builder = relax.BlockBuilder()
    with builder.function("main", values):
        with builder.dataflow():
            total = builder.emit(relax.op.add(values[0], values[3]))
            output = builder.emit_output(relax.op.add(total, values[1]))
        builder.emit_func_output(output)
    main = name_inputs_plainly(builder.get())["main"]
    found = [str(parameter.name) for parameter in main.params]
    assert found == ["input_gpu_0_data_", "input_gpu_0_data", "plain", "input_3d"]
    assert all(name.isidentifier() for name in found)
    assert relax.analysis.free_vars(main) == []
