from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

tvm = import_tvm()

from tvm import tirx  # noqa: E402

from assay.compile.schedules.ir import lanes_at, load, loop, store  # noqa: E402
from assay.compile.schedules.narrow import narrowed, widened  # noqa: E402
from assay.compile.targets.target import VectorUnit  # noqa: E402
from assay.compile.targets.x86_64_v2 import TARGET as X86_64_V2  # noqa: E402
from assay.compile.targets.x86_64_v3 import TARGET as X86_64_V3  # noqa: E402

FORMS = pytest.mark.parametrize(
    ("unit", "cpu"),
    [(X86_64_V2.vector_unit, "x86-64-v2"), (X86_64_V3.vector_unit, "x86-64-v3")],
    ids=["arithmetic", "instructions"],
)


def run(source: np.ndarray, dtype: str, unit: VectorUnit, cpu: str) -> np.ndarray:
    """``source`` as ``dtype``, in vectors; one of both is float32."""
    x, y = (
        tirx.decl_buffer([source.size], kind, name=name)
        for kind, name in ((str(source.dtype), "x"), (dtype, "y"))
    )
    lanes = unit.lanes()

    def convert(i: Any) -> Any:
        at = i * lanes
        if dtype == "float32":
            value = widened(x, at, lanes, unit)
        else:
            value = narrowed(load(x, lanes_at(at, lanes)), dtype, lanes, unit)
        return store(y, value, lanes_at(at, lanes))

    function = tirx.PrimFunc([x, y], loop(source.size // lanes, convert)).with_attr(
        "global_symbol", "convert"
    )
    compiled = tvm.compile(function, target=tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
    result = tvm.runtime.tensor(np.zeros(source.size, dtype))
    compiled["convert"](tvm.runtime.tensor(source), result)
    return np.asarray(result.numpy())


@FORMS
def test_every_finite_float16_is_widened_exactly(unit: VectorUnit, cpu: str, needs_avx2: None) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    np.testing.assert_array_equal(run(finite, "float32", unit, cpu), finite.astype(np.float32))


@FORMS
def test_float16_is_the_nearest_even_one(unit: VectorUnit, cpu: str, needs_avx2: None) -> None:
    """All float16, the middles between neighbours, and float32 next to them; too large ones saturate."""
    positive = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (positive[:-1] + positive[1:]) / 2
    close = [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
    source = np.concatenate([positive, middle, *close, np.float32([65519, 65520, 1e30, np.inf])])
    source = np.concatenate([source, -source, np.zeros(-2 * source.size % 8, np.float32)]).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = np.clip(source, -65504, 65504).astype(np.float16)
    np.testing.assert_array_equal(run(source, "float16", unit, cpu).view(np.uint16), wanted.view(np.uint16))


@FORMS
def test_int8_is_the_nearest_even_one(unit: VectorUnit, cpu: str, needs_avx2: None) -> None:
    source = np.arange(-127, 127.25, 0.25, np.float32)[:1016]
    np.testing.assert_array_equal(run(source, "int8", unit, cpu), np.rint(source).astype(np.int8))
