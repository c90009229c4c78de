from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node


@pytest.fixture
def chain(make_model: Any) -> onnx.ModelProto:
    """Three matrix products of 32 columns, one after the other, then one to 5."""
    w = np.ones((32, 32), np.float32)
    names = ["x", "a", "b", "c"]
    nodes = [node("MatMul", [one, "w"], [other]) for one, other in pairwise(names)]
    nodes.append(node("MatMul", ["c", "v"], ["y"]))
    weights = {"w": w, "v": w[:, :5]}
    return make_model(nodes, {"x": ["rows", 32]}, {"y": ["rows", 5]}, weights)


def lower(model: onnx.ModelProto, **sizes: int) -> Any:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles
    from assay.compile.targets import targets

    return lower(
        import_onnx(model),
        target=targets()["x86-64-v3"],
        profile=profiles()["release"],
        sizes={"rows": sizes["default"]},
        maxima={"rows": sizes["maximum"]},
    )


def test_values_share_storage(tvm: Any, chain: onnx.ModelProto) -> None:
    workspace = lower(chain, default=16, maximum=1024).workspace
    # Of a chain, two values live at a time: what a kernel reads, and what it writes.
    assert workspace.default_bytes == 2 * 4 * 16 * 32
    assert workspace.maximum_bytes == 2 * 4 * 1024 * 32


def test_workspace_of_kernels_counts(tvm: Any, make_model: Any) -> None:
    """A padded copy of the input is a kernel's own."""
    model = make_model(
        [node("Conv", ["x", "w"], ["y"], pads=[2] * 4)],
        {"x": ["rows", 1, 30, 30]},
        {"y": ["rows", 8, 30, 30]},
        {"w": np.ones((8, 1, 5, 5), np.float32)},
    )
    workspace = lower(model, default=1, maximum=4).workspace
    assert workspace.default_bytes >= 4 * 34 * 34
    assert workspace.maximum_bytes >= 4 * workspace.default_bytes - 4096
