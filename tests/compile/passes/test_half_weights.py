"""Which weights of 16 bits products and tables of devices read as they are stored, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Converted = Callable[..., dict[str, list[tuple[int, ...]]]]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def with_halves(model: onnx.ModelProto, name: str, dtype: str) -> onnx.ModelProto:
    """The initializer ``name`` stored in 16 bits."""
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    values = onnx.numpy_helper.to_array(tensor)
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    stored = onnx.helper.make_tensor(
        name, getattr(onnx.TensorProto, dtype.upper()), values.shape, values.astype(kind).tobytes(), raw=True
    )
    tensor.CopyFrom(stored)
    return model


@pytest.fixture
def converted(tvm: Any) -> Converted:
    """Compile the converted model for the CPU as TVM does, compare it, and give its constants by dtype."""

    def check(
        model: onnx.ModelProto, inputs: dict[str, Any], largest_buffer: int | None = None
    ) -> dict[str, list[tuple[int, ...]]]:
        from tvm import relax

        from assay.compile.importer import import_onnx
        from assay.compile.passes.constants import array_of, fold_constant_movement
        from assay.compile.passes.device_operators import convert_for_devices
        from assay.compile.passes.half_weights import keep_half_weights
        from assay.compile.verify import reference_outputs

        (expected,) = reference_outputs(model.SerializeToString(), [inputs])
        module = keep_half_weights(import_onnx(model), largest_buffer)
        module = fold_constant_movement(convert_for_devices(module))
        constants: dict[str, list[tuple[int, ...]]] = {}
        seen = set()

        def note(expr: Any) -> None:
            array = array_of(expr)
            if array is not None and array.ndim > 1 and expr not in seen:
                seen.add(expr)
                constants.setdefault(array.dtype.name, []).append(array.shape)

        relax.analysis.post_order_visit(module["main"], note)
        machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
        result = machine["main"](*(tvm.runtime.tensor(array) for array in inputs.values()))
        (wanted,) = expected.values()
        np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-5, atol=1e-5)
        return constants

    return check


@pytest.fixture
def product(make_model: MakeModel) -> onnx.ModelProto:
    """x @ w, of [20, 16] weights."""
    nodes = [node("Cast", ["w"], ["wide"], to=1), node("MatMul", ["x", "wide"], ["y"])]
    model = make_model(nodes, {"x": ["n", 20]}, {"y": ["n", 16]}, {"w": normal(20, 16)})
    return with_halves(model, "w", "bfloat16")


@pytest.fixture
def table(make_model: MakeModel) -> onnx.ModelProto:
    """Rows of a table [20, 16]."""
    nodes = [node("Gather", ["w", "ids"], ["rows"]), node("Cast", ["rows"], ["y"], to=1)]
    model = make_model(nodes, {"ids": (["n"], "int64")}, {"y": ["n", 16]}, {"w": normal(20, 16)})
    return with_halves(model, "w", "float16")


def test_products_read_words(product: onnx.ModelProto, converted: Converted) -> None:
    assert converted(product, {"x": normal(3, 20)}) == {"int32": [(1, 10, 16)]}


def test_tables_read_words(table: onnx.ModelProto, converted: Converted) -> None:
    assert converted(table, {"ids": np.array([3, -1, 19], np.int64)}) == {"int32": [(2, 8, 16)]}


def test_what_a_buffer_cannot_hold_comes_in_parts(make_model: MakeModel, converted: Converted) -> None:
    """A table that is a product's weight too, of 200 rows of 20: parts of both are the same."""
    nodes = [
        node("Gather", ["w", "ids"], ["rows"]),
        node("Cast", ["rows"], ["x"], to=1),
        node("Cast", ["w"], ["wide"], to=1),
        node("Transpose", ["wide"], ["turned"], perm=[1, 0]),
        node("MatMul", ["x", "turned"], ["y"]),
    ]
    model = make_model(nodes, {"ids": (["n"], "int64")}, {"y": ["n", 200]}, {"w": normal(200, 20)})
    model = with_halves(model, "w", "bfloat16")
    ids = {"ids": np.array([0, 63, 64, 127, 128, -1, 199], np.int64)}
    assert converted(model, ids) == {"int32": [(13, 10, 16)]}
    # Room for 64 rows in float32, and what a panel may have besides.
    parts = [(4, 10, 16)] * 3 + [(1, 10, 16)]
    assert sorted(converted(model, ids, (64 + 15) * 20 * 4)["int32"], reverse=True) == parts


def test_weights_that_something_else_reads_are_widened(make_model: MakeModel, converted: Converted) -> None:
    nodes = [
        node("Cast", ["w"], ["wide"], to=1),
        node("MatMul", ["x", "wide"], ["product"]),
        node("ReduceSum", ["wide"], ["total"], keepdims=0),
        node("Add", ["product", "total"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["n", 20]}, {"y": ["n", 16]}, {"w": normal(20, 16)})
    found = converted(with_halves(model, "w", "bfloat16"), {"x": normal(3, 20)})
    assert found == {"float32": [(20, 16)]}


def test_what_is_computed_in_16_bits_is_widened_by_a_cast(
    make_model: MakeModel, converted: Converted
) -> None:
    nodes = [
        node("Cast", ["x"], ["narrow"], to=onnx.TensorProto.FLOAT16),
        node("Cast", ["narrow"], ["y"], to=1),
    ]
    model = make_model(nodes, {"x": ["n", 20]}, {"y": ["n", 20]}, {})
    assert converted(model, {"x": normal(3, 20)}) == {}
