from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

Build = Callable[..., Any]


@pytest.fixture(scope="module")
def read() -> Callable[[Build], Any]:
    """The one fused function of what ``build(builder, x, y)`` computes of two float32 [4, 6], read."""
    tvm = import_tvm()
    from tvm import relax, tirx

    from assay.compile.schedules.blocks import read_function

    def run(build: Build) -> Any:
        inputs = [relax.Var(name, relax.TensorType((4, 6), "float32")) for name in "xy"]
        builder = relax.BlockBuilder()
        with builder.function("main", inputs):
            with builder.dataflow():
                result = builder.emit_output(build(builder, *inputs))
            builder.emit_func_output(result)
        transform = relax.transform
        passes = [
            transform.LegalizeOps(),
            transform.AnnotateTIROpPattern(),
            transform.FuseOps(),
            transform.FuseTIR(),
        ]
        module = tvm.transform.Sequential([*passes, transform.DeadCodeElimination()])(builder.get())
        (function,) = (f for f in module.functions.values() if isinstance(f, tirx.PrimFunc))
        return read_function(function)

    return run


def test_elementwise_chain(read: Callable[[Build], Any]) -> None:
    from tvm import relax

    function = read(lambda b, x, y: b.emit(relax.op.nn.relu(b.emit(relax.op.add(x, y)))))
    first, second = function.blocks
    assert not first.is_reduction
    assert [int(extent) for extent in first.spatial_extents] == [4, 6]
    assert function.is_param(second.output)
    assert not function.is_param(first.output)
    assert [buffer.same_as(first.output) for buffer in function.intermediates] == [True]
    assert function.anchor() is None


def test_reduction_has_its_start_value(read: Callable[[Build], Any]) -> None:
    from tvm import relax

    (block,) = read(lambda b, x, y: b.emit(relax.op.sum(x, axis=1))).blocks
    assert block.is_reduction
    assert [int(extent) for extent in block.reduction_extents] == [6]
    assert float(block.init.value) == 0.0


def test_loads_of_an_expression(read: Callable[[Build], Any]) -> None:
    from tvm import relax

    from assay.compile.schedules.blocks import loads_of

    function = read(lambda b, x, y: b.emit(relax.op.multiply(x, y)))
    assert [load.source.name for load in loads_of(function.blocks[0].value)] == [
        p.name for p in function.params[:2]
    ]


def test_anchor_is_what_its_maker_annotated(read: Callable[[Build], Any]) -> None:
    from tvm import relax

    from assay.compile.schedules.gemm import pack_panels, packed_matmul

    panels = relax.const(pack_panels(np.ones((6, 8), np.float32), 8))
    function = read(lambda b, x, y: b.emit(relax.op.nn.relu(b.emit_te(packed_matmul, x, panels, 8))))
    anchor = function.anchor()
    assert anchor is not None
    assert str(anchor.annotations["assay.schedule"]) == "packed_matmul"
    assert anchor is function.blocks[0]


def test_function_that_is_not_made_of_blocks_is_left_alone() -> None:
    import_tvm()
    from tvm import tirx

    from assay.compile.schedules.blocks import UnreadableFunctionError, read_function

    with pytest.raises(UnreadableFunctionError, match="no root block"):
        read_function(tirx.PrimFunc([], tirx.Evaluate(tirx.IntImm("int32", 0))))
