from __future__ import annotations

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import relax  # noqa: E402

from assay.compile.schedules.legalize import group_norm, position_of_extreme  # noqa: E402

op = relax.op


@pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
@pytest.mark.parametrize("axis", [0, 1, -1, None])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_position_of_extreme(check, largest, axis, dtype):
    """Small integers hold each extreme several times: the first counts."""
    check(
        lambda b, x: b.emit_te(position_of_extreme, x, axis, False, largest=largest),
        lambda x: np.asarray((np.argmax if largest else np.argmin)(x, axis), "int64"),
        (("m", 9, 37), dtype),
        at=[{"m": 1}, {"m": 4}],
    )


def test_position_of_extreme_keeps_dimensions(check):
    check(
        lambda b, x: b.emit_te(position_of_extreme, x, 1, True, largest=True),
        lambda x: x.argmax(1)[:, None],
        ((2, 21, 9, 10), "float32"),
    )


def test_group_norm(check):
    def reference(x, scale, bias):
        centred = x - x.mean((2, 3, 4), keepdims=True)
        normal = centred / np.sqrt((centred**2).mean((2, 3, 4), keepdims=True) + 1e-5)
        return normal * scale[..., None, None] + bias[..., None, None]

    check(
        lambda b, x, s, t: b.emit_te(group_norm, x, s, t, 1e-5),
        reference,
        ((2, 3, 4, 5, 7), "float32"),
        ((3, 4), "float32"),
        ((3, 4), "float32"),
        tolerance=5e-6,
    )


def test_relax_operators_use_these_definitions():
    from assay.compile.schedules.legalize import legalizations

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 6, 5, 7), "float32"))
    scale = relax.const(np.ones(6, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(op.nn.group_norm(x, scale, scale, 2, 1, [2, 3]))
            result = builder.emit_output(op.argmax(y, axis=1))
        builder.emit_func_output(result)
    module = relax.transform.LegalizeOps(legalizations())(builder.get())
    names = {variable.name_hint for variable in module.functions}
    assert {"group_norm", "argmax"} <= names
