from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]

CHANNELS = 24


def shuffle(source: str, result: str, groups: int) -> list[onnx.NodeProto]:
    """The three operators of a channel shuffle; ``batch`` is kept by a zero."""
    return [
        node("Reshape", [source, f"split{groups}"], [f"{result}_split"]),
        node("Transpose", [f"{result}_split"], [f"{result}_swapped"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", [f"{result}_swapped", "merged"], [result]),
    ]


def shapes(*groups: int) -> dict[str, Any]:
    split = {f"split{g}": np.array([0, g, CHANNELS // g, 6, 5], np.int64) for g in groups}
    return {**split, "merged": np.array([0, CHANNELS, 6, 5], np.int64)}


def weight(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 0.3


def data(batch: int = 2) -> dict[str, Any]:
    return {"x": weight(batch, CHANNELS, 6, 5, seed=9)}


def operators(model: onnx.ModelProto) -> list[str]:
    """The operators left after the passes over the layout."""
    from tvm import relax
    from tvm.ir import Call

    from assay.compile.importer import import_onnx
    from assay.compile.passes.constants import fold_constant_movement
    from assay.compile.passes.layout import to_channels_last
    from assay.compile.passes.normalize import normalize
    from assay.compile.passes.shuffle import sink_shuffles

    module = fold_constant_movement(normalize(import_onnx(model)))
    module = sink_shuffles(fold_constant_movement(to_channels_last(module)))
    names: list[str] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, Call) and hasattr(expr.op, "name"):
            names.append(str(expr.op.name).removeprefix("relax."))

    relax.analysis.post_order_visit(module["main"], visit)
    return names


def unit(make_model: MakeModel, groups: int, second: int, batch: int | str = 2) -> onnx.ModelProto:
    """A grouped convolution, a shuffle, a depthwise one with bias and activation, and a grouped one."""
    return make_model(
        [
            node("Conv", ["x", "w0"], ["a"], group=groups),
            *shuffle("a", "b", groups),
            node("Conv", ["b", "w1", "bias"], ["c"], group=CHANNELS, pads=[1] * 4),
            node("Relu", ["c"], ["d"]),
            node("Mul", ["d", "scale"], ["e"]),
            node("Conv", ["e", "w2"], ["f"], group=second, strides=[2, 1]),
            node("Add", ["f", "shift"], ["y"]),
        ],
        {"x": [batch, CHANNELS, 6, 5]},
        {"y": [batch, 16, 3, 5]},
        {
            **shapes(groups),
            "w0": weight(CHANNELS, CHANNELS // groups, 1, 1),
            "w1": weight(CHANNELS, 1, 3, 3, seed=1),
            "bias": weight(CHANNELS, seed=2),
            "scale": weight(CHANNELS, 1, 1, seed=3),
            "w2": weight(16, CHANNELS // second, 1, 1, seed=4),
            "shift": weight(16, 1, 1, seed=5),
        },
    )


@pytest.mark.parametrize(("groups", "second"), [(4, 4), (3, 4), (2, 1), (8, 2)])
def test_no_copy_is_left(make_model: MakeModel, agree: Agree, groups: int, second: int) -> None:
    model = unit(make_model, groups, second)
    agree(model, data())
    # The shuffle left is the form that the convolution reads through; there is none before a dense one.
    left = operators(model)
    assert left.index("nn.conv2d") < left.index("add")
    assert left.count("permute_dims") == (3 if second > 1 else 2)


def test_shuffle_of_a_symbolic_batch(make_model: MakeModel, agree: Agree) -> None:
    agree(unit(make_model, 4, 2, "batch"), data(3))


def test_grouped_convolution_reads_through_the_shuffle(
    tvm: Any, make_model: MakeModel, run_compiled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.compile.passes import contractions

    seen: list[tuple[int, ...]] = []
    original = contractions.pack_shuffled
    monkeypatch.setattr(contractions, "pack_shuffled", lambda *args: seen.append(1) or original(*args))
    run_compiled(unit(make_model, 4, 4), data())
    assert len(seen) == 1


def test_shuffle_that_is_read_twice_or_by_others_stays(make_model: MakeModel, agree: Agree) -> None:
    model = make_model(
        [
            *shuffle("x", "a", 4),
            node("Conv", ["a", "w"], ["b"], group=CHANNELS),
            node("Softmax", ["a"], ["c"], axis=1),
            node("Add", ["b", "c"], ["d"]),
            *shuffle("d", "e", 6),
            node("Sub", ["e", "x"], ["f"]),
            *shuffle("f", "g", 2),
            *shuffle("d", "h", 2),
            node("Add", ["g", "h"], ["i"]),
            node("GlobalAveragePool", ["i"], ["y"]),
        ],
        {"x": [2, CHANNELS, 6, 5]},
        {"y": [2, CHANNELS, 1, 1], "c": [2, CHANNELS, 6, 5]},
        {**shapes(2, 4, 6), "w": weight(CHANNELS, 1, 1, 1)},
    )
    agree(model, data())
