from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
ROWS, COLUMNS = 300, 70
DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def _model(make_model: Any, *, tied: bool = True, dtype: str = "float32") -> onnx.ModelProto:
    """y = table[ids] @ transpose(table), or @ another weight where not ``tied``."""
    generator, stored = np.random.default_rng(0), DTYPES[dtype]
    table = generator.standard_normal((ROWS, COLUMNS)).astype(stored)
    head = table if tied else generator.standard_normal((ROWS, COLUMNS)).astype(stored)
    real = onnx.TensorProto.FLOAT
    nodes = [
        node("Gather", ["table", "ids"], ["rows"]),
        node("Cast", ["rows"], ["x"], to=real),
        node("Cast", ["head"], ["wide"], to=real),
        node("Transpose", ["wide"], ["turned"], perm=[1, 0]),
        node("MatMul", ["x", "turned"], ["y"]),
    ]
    inputs = {"ids": ([1, "tokens"], "int64")}
    return make_model(nodes, inputs, {"y": [1, "tokens", ROWS]}, {"table": table, "head": head})


def _weights(model: onnx.ModelProto) -> dict[str, Any]:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles
    from assay.compile.targets import targets

    sizes = {"tokens": 4}
    options: dict[str, Any] = {"target": targets()["x86-64-v3"], "profile": profiles()["release"]}
    return lower(import_onnx(model), sizes=sizes, maxima={"tokens": 64}, **options).weights


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_tied_table_is_stored_once(tvm: Any, make_model: Any, agree: Any, dtype: str) -> None:
    model = _model(make_model, dtype=dtype)
    size = ROWS * COLUMNS * np.dtype(DTYPES[dtype]).itemsize
    assert size <= sum(array.nbytes for array in _weights(model).values()) < 1.2 * size
    for count in (1, 9):
        ids = np.random.default_rng(count).integers(-ROWS, ROWS, (1, count))
        agree(model, {"ids": ids})


def test_other_tables_stay(tvm: Any, make_model: Any, agree: Any) -> None:
    model = _model(make_model, tied=False)
    assert sum(array.nbytes for array in _weights(model).values()) >= 2 * ROWS * COLUMNS * 4
    agree(model, {"ids": np.array([[0, ROWS - 1, 17]])})
