from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.targets.x86_64_v3 import TARGET
from assay.compile.tvm_import import import_tvm

tvm = import_tvm()

from tvm import tirx  # noqa: E402


def run(extent: Any, size: int, *, serial: bool = False, times: int = 1) -> Any:
    """How often each number below ``extent`` was taken, in an array of ``size``."""
    from assay.compile.lower import llvm_target
    from assay.compile.schedules.dynamic_shares import parallel_by_turns
    from assay.compile.schedules.ir import load, store

    counts = tirx.decl_buffer([size], "int32", name="counts")
    number = tirx.Var("number", "int64")
    body = parallel_by_turns(
        number if extent is None else extent,
        lambda i: store(counts, load(counts, i) + 1, i),
        "unit",
        serial=serial,
    )
    kernel = tirx.PrimFunc([counts, number], body).with_attr("global_symbol", "kernel")
    library = tvm.compile(tvm.IRModule({"kernel": kernel}), target=llvm_target(TARGET))
    array = tvm.runtime.tensor(np.zeros(size, np.int32))
    for _ in range(times):
        library["kernel"](array, size if extent is None else 0)
    return array.numpy()


@pytest.mark.parametrize("size", [1, 2, 255, 1000])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "symbolic"])
def test_every_number_is_taken_once(needs_avx2: None, size: int, constant: bool) -> None:
    taken = run(size if constant else None, size, times=20)
    np.testing.assert_array_equal(taken, np.full(size, 20, np.int32))


def test_serial(needs_avx2: None) -> None:
    np.testing.assert_array_equal(run(5, 5, serial=True), np.ones(5, np.int32))


def test_no_number_at_all(needs_avx2: None) -> None:
    np.testing.assert_array_equal(run(0, 3), np.zeros(3, np.int32))
