"""Operations and bytes of fused functions, against counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.targets import find_target
from assay.compile.tvm_import import import_tvm
from assay.compile.work import describe_kernel, describe_kernels
from assay.runtime.kernels import work_of

tvm = import_tvm()

from tvm import relax, te, tirx  # noqa: E402

from assay.compile.device_schedules.paged_attention import device_paged_attention  # noqa: E402
from assay.compile.schedules.context import ScheduleContext  # noqa: E402
from assay.compile.schedules.paged_attention import paged_attention  # noqa: E402
from assay.compile.schedules.paged_problem import PagedProblem  # noqa: E402

BATCH, ROWS, COLUMNS = "batch", 6, 10


def describe(build: Any, *inputs: tuple[tuple[int | str, ...], str]) -> Any:
    """The description of the one kernel that a Relax function of these inputs fuses to."""
    symbols: dict[str, Any] = {}
    parameters = []
    for position, (shape, dtype) in enumerate(inputs):
        sizes = [symbols.setdefault(s, tirx.Var(s, "int64")) if isinstance(s, str) else s for s in shape]
        parameters.append(relax.Var(f"x{position}", relax.TensorType(sizes, dtype)))
    builder = relax.BlockBuilder()
    with builder.function("main", parameters):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build(builder, *parameters)))
        builder.emit_func_output(result)
    transform = relax.transform
    passes = [transform.LegalizeOps(), transform.AnnotateTIROpPattern(), transform.FuseOps()]
    module = tvm.transform.Sequential([*passes, transform.FuseTIR()])(builder.get())
    (kernel,) = describe_kernels(module).values()
    return kernel


def test_a_product_with_its_epilogue():
    kernel = describe(
        lambda _, a, b, c: relax.op.nn.relu(relax.op.matmul(a, b) + c),
        ((BATCH, ROWS), "float32"),
        ((ROWS, COLUMNS), "float32"),
        ((COLUMNS,), "float32"),
    )
    work = work_of(kernel, ((7, ROWS), (ROWS, COLUMNS), (COLUMNS,), (7, COLUMNS)))
    # A multiply-add for each product, an addition and a maximum for each result.
    assert work.operations == {"float": 2 * 7 * ROWS * COLUMNS + 2 * 7 * COLUMNS}
    assert work.touched == (4 * 7 * ROWS, 4 * ROWS * COLUMNS, 4 * COLUMNS, 4 * 7 * COLUMNS)


def test_a_softmax_reads_its_input_once():
    kernel = describe(lambda _, x: relax.op.nn.softmax(x), ((BATCH, COLUMNS), "float32"))
    work = work_of(kernel, ((7, COLUMNS), (7, COLUMNS)))
    # Maximum, difference and exponential, sum, quotient.
    assert work.operations == {"float": 5 * 7 * COLUMNS}
    assert work.touched == (4 * 7 * COLUMNS, 4 * 7 * COLUMNS)


def test_a_gather_touches_what_it_reads_of_its_table():
    kernel = describe(
        lambda _, table, ids: relax.op.take(table, ids, axis=0), ((1000, 8), "float32"), ((BATCH,), "int64")
    )
    work = work_of(kernel, ((1000, 8), (3,), (3, 8)))
    assert work.touched == (4 * 3 * 8, 8 * 3, 4 * 3 * 8)
    assert not (work.operations or {}).get("float")
    # No more than there is, however many ids.
    assert work_of(kernel, ((1000, 8), (5000,), (5000, 8))).touched[0] == 4 * 1000 * 8


@pytest.mark.parametrize("on_cpu", [True, False], ids=["CPU", "device"])
def test_attention_reads_a_row_of_the_tables_of_rotation_for_each_token(on_cpu: bool):
    context = ScheduleContext(unit=find_target("x86-64-v3").vector_unit)
    problem = PagedProblem(
        heads=4, kv_heads=2, head_dim=16, rotary_dim=16, positions=160, scale=0.25, softcap=0.0, layers=2,
        cache_dtype="float32",
    )  # fmt: skip
    function = paged_attention(problem, context) if on_cpu else device_paged_attention(problem, None)
    kernel = describe_kernel(function)
    tables = {each.name: place for place, each in enumerate(kernel.parameters)}
    tokens, sequences, pages = 3, 1, 5
    shapes = (
        (1, tokens, 128), (160, 8), (160, 8), (1, tokens), (sequences,), (sequences + 1,), (sequences, 4),
        (2,), (pages, 2, 2, 2, 512), (1, tokens, 64),
    )  # fmt: skip
    touched = work_of(kernel, shapes).touched
    assert touched[tables["cosines"]] == touched[tables["sines"]] == 4 * tokens * 8
    assert touched[tables["qkv"]] == 4 * tokens * 128


def test_integers_are_counted_apart():
    kernel = describe(lambda _, x: x + relax.const(3, "int32"), ((BATCH,), "int32"))
    assert work_of(kernel, ((9,), (9,))).operations == {"integer": 9}


def test_what_an_operator_states_goes_before_its_loops():
    def stated(builder: Any, x: Any) -> Any:
        def compute(a: Any) -> Any:
            k = te.reduce_axis((0, COLUMNS), "k")
            return te.compute(
                (a.shape[0],), lambda i: te.sum(a[i, k] * a[i, k], axis=k), attrs={"assay.operations": 3}
            )

        return builder.call_te(compute, x)

    kernel = describe(stated, ((BATCH, COLUMNS), "float32"))
    assert work_of(kernel, ((7, COLUMNS), (7,))).operations == {"float": 3 * 7}


def test_what_is_not_made_of_loops_counts_no_operations():
    x = tirx.decl_buffer([3, COLUMNS], "float32", name="x")
    y = tirx.decl_buffer([3, COLUMNS], "float32", name="y")
    body = tirx.Evaluate(tirx.call_extern("int32", "anything", x.data, y.data))
    kernel = describe_kernel(tirx.PrimFunc([x, y], body))
    assert kernel.operations is None
    assert work_of(kernel, ((3, COLUMNS), (3, COLUMNS))).touched == (4 * 3 * COLUMNS,) * 2


@pytest.mark.parametrize("size", [1, 64])
def test_a_strided_slice_touches_its_part(size):
    kernel = describe(
        lambda _, x: relax.op.strided_slice(x, axes=[0], begin=[0], end=[size]), ((512, 4), "float32")
    )
    expected = np.dtype("float32").itemsize * size * 4
    assert work_of(kernel, ((512, 4), (size, 4))).touched == (expected, expected)
