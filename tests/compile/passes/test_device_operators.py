"""Operators with kernels of their own on the CPU, in their forms for devices, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from assay.errors import UnsupportedOperatorError

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.fixture
def agree(tvm: Any) -> Callable[..., None]:
    """Compare the form for devices, compiled for the CPU as TVM does, with ONNX Runtime."""

    def check(model: onnx.ModelProto, inputs: dict[str, Any]) -> None:
        from tvm import relax

        from assay.compile.importer import import_onnx
        from assay.compile.passes.device_operators import convert_for_devices
        from assay.compile.verify import reference_outputs

        (expected,) = reference_outputs(model.SerializeToString(), [inputs])
        module = convert_for_devices(import_onnx(model))
        machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
        results = machine["main"](*(tvm.runtime.tensor(array) for array in inputs.values()))
        arrays = [results] if len(expected) == 1 else list(results)
        for result, (name, wanted) in zip(arrays, expected.items(), strict=True):
            np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-4, atol=1e-5, err_msg=name)

    return check


def recurrent(make_model: MakeModel, kind: str, steps: int | str, **attributes: Any) -> onnx.ModelProto:
    """A recurrent operator of 3 hidden units in both directions over x [steps, batch, 4], with states."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    states = {"h": [2, "batch", 3]} | ({"c": [2, "batch", 3]} if kind == "LSTM" else {})
    outputs = {"y": [steps, 2, "batch", 3], "y_h": [2, "batch", 3]}
    outputs |= {"y_c": [2, "batch", 3]} if kind == "LSTM" else {}
    return make_model(
        [
            node(
                kind, ["x", "W", "R", "B", "lengths", *states], list(outputs), hidden_size=3,
                direction="bidirectional", **attributes,
            )
        ],
        {"x": [steps, "batch", 4], "lengths": (["batch"], "int32"), **states},
        outputs,
        {
            "W": normal(2, 3 * gates, 4),
            "R": normal(2, 3 * gates, 3, seed=1),
            "B": normal(2, 6 * gates, seed=2),
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})],
    ids=str,
)
def test_recurrences(
    make_model: MakeModel, agree: Callable[..., None], kind: str, attributes: dict[str, Any]
) -> None:
    inputs = {"x": normal(5, 2, 4), "lengths": np.array([5, 3], np.int32), "h": normal(2, 2, 3, seed=3)}
    if kind == "LSTM":
        inputs["c"] = normal(2, 2, 3, seed=4)
    agree(recurrent(make_model, kind, 5, **attributes), inputs)


@pytest.mark.parametrize("steps", ["steps", 65])
def test_too_many_steps(tvm: Any, make_model: MakeModel, steps: int | str) -> None:
    from assay.compile.importer import import_onnx
    from assay.compile.passes.device_operators import convert_for_devices

    with pytest.raises(UnsupportedOperatorError, match="LSTM over"):
        convert_for_devices(import_onnx(recurrent(make_model, "LSTM", steps)))


@pytest.mark.parametrize(("bits", "zeros", "bias"), [(4, True, True), (4, False, False), (8, True, False)])
def test_products_of_block_quantized_weights(
    make_model: MakeModel, agree: Callable[..., None], bits: int, zeros: bool, bias: bool
) -> None:
    generator = np.random.default_rng(0)
    rows, columns, block = 6, 40, 16
    blocks = -(-columns // block)
    weights = {
        "b": generator.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8),
        "s": generator.uniform(0.01, 0.1, rows * blocks).astype(np.float32),
    }
    names = ["x", "b", "s"]
    if zeros:
        names.append("z")
        size = rows * (-(-blocks * bits // 8))
        weights["z"] = generator.integers(0, 256, size).astype(np.uint8)
    if bias:
        names += [""] * (5 - len(names)) + ["o"]
        weights["o"] = normal(rows)
    model = make_model(
        [
            node(
                "MatMulNBits", names, ["y"], domain="com.microsoft", K=columns, N=rows, bits=bits,
                block_size=block,
            )
        ],
        {"x": ["n", columns]},
        {"y": ["n", rows]},
        weights,
    )  # fmt: skip
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    agree(model, {"x": normal(3, columns)})
