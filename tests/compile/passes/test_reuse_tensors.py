from __future__ import annotations

from typing import Any

import numpy as np
import onnx

node = onnx.helper.make_node


def _model(make_model: Any, layers: int) -> onnx.ModelProto:
    """Layers that are alike: x = relu(x @ w) @ v, and the sum of what two of them give."""
    generator = np.random.default_rng(0)
    nodes, weights = [], {}
    for i in range(layers):
        weights[f"w{i}"] = generator.standard_normal((24, 40)).astype(np.float32)
        weights[f"v{i}"] = generator.standard_normal((40, 24)).astype(np.float32) / 40
        x = "x" if i == 0 else f"y{i - 1}"
        nodes += [
            node("MatMul", [x, f"w{i}"], [f"a{i}"]),
            node("Relu", [f"a{i}"], [f"b{i}"]),
            node("MatMul", [f"b{i}", f"v{i}"], [f"y{i}"]),
        ]
    nodes.append(node("Add", [f"y{layers - 1}", "y0"], ["y"]))
    return make_model(nodes, {"x": ["rows", 24]}, {"y": ["rows", 24]}, weights)


def _instructions(model: onnx.ModelProto) -> str:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles
    from assay.compile.targets import targets

    lowered = lower(
        import_onnx(model),
        target=targets()["x86-64-v3"],
        profile=profiles()["release"],
        sizes={"rows": 4},
        maxima={"rows": 64},
    )
    return str(lowered.executable.as_text())


def test_layers_that_are_alike_share_their_tensors(tvm: Any, make_model: Any) -> None:
    counts = [_instructions(_model(make_model, n)).count("alloc_tensor") for n in (4, 8)]
    assert counts[0] == counts[1]


def test_results_stay(make_model: Any, agree: Any) -> None:
    model = _model(make_model, 5)
    for rows in (1, 7):
        x = np.random.default_rng(rows).standard_normal((rows, 24)).astype(np.float32)
        agree(model, {"x": x})
