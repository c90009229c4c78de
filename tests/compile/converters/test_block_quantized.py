from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from assay.errors import UnsupportedOperatorError

MICROSOFT = "com.microsoft"


class Model:
    """Nodes of ONNX Runtime's own operators over random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        domain = MICROSOFT if operator in ("MatMulNBits", "GatherBlockQuantized") else ""
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def weight(self, name: str, array: Any) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def block_weights(
        self, name: str, rows: int, columns: int, bits: int, block: int, zeros: bool
    ) -> list[str]:
        blocks = -(-columns // block)
        scales = (self.generator.random((rows, blocks)) * 0.05).astype(np.float32)
        codes = self.generator.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8)
        names = [self.weight(name, codes), self.weight(f"{name}.scales", scales)]
        if zeros:
            points = self.generator.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8)
            names.append(self.weight(f"{name}.zeros", points))
        return names

    def product(
        self, x: str, name: str, rows: int, columns: int, bits: int = 4, block: int = 32, zeros: bool = False,
        level: int = 4,
    ) -> str:  # fmt: skip
        inputs = [x, *self.block_weights(name, rows, columns, bits, block, zeros)]
        return self.node(
            "MatMulNBits", inputs, f"{name}.y", N=rows, K=columns, bits=bits, block_size=block,
            accuracy_level=level,
        )  # fmt: skip

    def made(self, inputs: Mapping[str, Any], output: str, shape: list[Any]) -> onnx.ModelProto:
        kinds = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(n, kinds[dtype], shape) for n, (dtype, shape) in inputs.items()],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def lowered(model: onnx.ModelProto) -> Any:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles
    from assay.compile.targets import find_target

    return lower(
        import_onnx(model), target=find_target("x86-64-v3"), profile=profiles()["release"],
        sizes={"tokens": 16}, maxima={"tokens": 64},
    )  # fmt: skip


def compare(model: onnx.ModelProto, x: Any, result: Any, tolerance: float = 2e-6) -> None:
    """The compiled model beside ONNX Runtime."""
    import onnxruntime

    from assay.compile.tvm_import import import_tvm

    tvm = import_tvm()
    from tvm import relax

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    machine = relax.VirtualMachine(result.executable, tvm.cpu())
    weights = tuple(tvm.runtime.tensor(array) for array in result.weights.values())
    actual = machine["main"](tvm.runtime.tensor(x), weights).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def activations(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_products_of_one_input_are_joined_and_share_its_quantization(needs_avx2: None) -> None:
    """A tied table and head lie in the artifact once; a concatenation of all parts costs nothing."""
    model = Model()
    columns, words = 64, 100
    table = model.block_weights("table", words, columns, 8, 32, False)
    shape = model.weight("shape", np.array([words, columns], np.int64))
    model.node("Reshape", [table[0], shape], "rows")
    x = model.node("GatherBlockQuantized", ["rows", "ids", table[1]], "x", bits=8, block_size=32)
    parts = [model.product(x, name, rows, columns) for name, rows in (("q", 64), ("k", 16), ("v", 16))]
    model.node("Concat", parts, "qkv", axis=-1)
    model.product("qkv", "o", columns, 96)
    model.node("Add", ["x", "o.y"], "residual")
    gate, up = (model.product("residual", name, 96, columns, zeros=True) for name in ("gate", "up"))
    model.node("Sigmoid", [gate], "sigmoid")
    model.node("Mul", [gate, "sigmoid"], "silu")
    model.node("Mul", ["silu", up], "hidden")
    model.product("hidden", "down", columns, 96, bits=8)
    model.node("Add", ["residual", "down.y"], "last")
    model.node(
        "MatMulNBits", ["last", *table], "logits", N=words, K=columns, bits=8, block_size=32, accuracy_level=4
    )
    made = model.made({"ids": ("int64", [1, "tokens"])}, "logits", [1, "tokens", words])
    result = lowered(made)
    products = [name for name in result.kernels if "block_matmul" in name]
    assert len(products) == 5
    assert not any("concat" in name for name in result.kernels)
    assert sum(array.nbytes for array in result.weights.values() if array.shape[0] == -(-words // 32)) == (
        4 * 32 * (64 + 2 * 4)
    )
    for tokens in (1, 20):
        ids = np.random.default_rng(tokens).integers(-words, words, (1, tokens))
        # Where a sum of a float32 differs in its last bit, an activation may become the next integer.
        compare(made, ids, result, tolerance=0.03)


@pytest.mark.parametrize(
    ("bits", "block", "zeros", "columns"), [(4, 16, True, 40), (8, 128, True, 200), (4, 64, False, 90)]
)
def test_product(bits: int, block: int, zeros: bool, columns: int, needs_avx2: None) -> None:
    model = Model(bits)
    output = model.product("x", "w", 37, columns, bits, block, zeros)
    made = model.made({"x": ("float32", ["tokens", columns])}, output, ["tokens", 37])
    result = lowered(made)
    for rows in (1, 3, 12):
        compare(made, activations(rows, columns), result)


def test_product_in_full_precision(needs_avx2: None) -> None:
    """Without accuracy_level 4, activations keep their precision."""
    model = Model()
    output = model.product("x", "w", 20, 64, level=1)
    made = model.made({"x": ("float32", ["tokens", 64])}, output, ["tokens", 20])
    compare(made, activations(3, 64), lowered(made))


@pytest.mark.parametrize(("bits", "zeros"), [(4, False), (4, True), (8, True)])
def test_rows_of_a_table(bits: int, zeros: bool, needs_avx2: None) -> None:
    model = Model(bits)
    codes, *others = model.block_weights("table", 50, 96, bits, 32, zeros)
    shape = model.weight("shape", np.array([50, 96 * bits // 8], np.int64))
    model.node("Reshape", [codes, shape], "rows")
    model.node("GatherBlockQuantized", ["rows", "ids", *others], "y", bits=bits, block_size=32)
    made = model.made({"ids": ("int64", ["tokens"])}, "y", ["tokens", 96])
    compare(made, np.array([0, 49, -1, 7, 7], np.int64), lowered(made), tolerance=1e-7)


@pytest.mark.parametrize("change", ["scales", "codes", "block", "computed"])
def test_what_is_not_supported_is_named(change: str) -> None:
    model = Model()
    names = model.block_weights("w", 8, 64, 4, 32, False)
    columns, block = (96, 32) if change == "codes" else (64, 24 if change == "block" else 32)
    if change == "scales":
        names[1] = model.weight("short", np.ones(3, np.float32))
    if change == "computed":
        names[1] = model.node("Abs", ["s"], "computed")
    model.node("MatMulNBits", ["x", *names], "y", N=8, K=columns, bits=4, block_size=block)
    inputs: dict[str, Any] = {"x": ("float32", ["tokens", columns]), "s": ("float32", [8, 2])}
    made = model.made(inputs, "y", ["tokens", 8])
    from assay.compile.importer import import_onnx

    with pytest.raises(UnsupportedOperatorError, match="MatMulNBits"):
        import_onnx(made)
