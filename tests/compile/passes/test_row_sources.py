"""Norms and gates that are computed where products of them quantize their operand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.compile.converters.test_block_quantized import Model, activations, compare, lowered

WIDTH, HIDDEN = 64, 96


def normed(model: Model, x: str) -> str:
    """RMS norm written out."""
    model.weight("axes", np.array([-1]))
    model.weight("epsilon", np.float32(1e-5))
    model.weight("scale", np.linspace(0.5, 1.5, WIDTH, dtype=np.float32))
    model.node("Mul", [x, x], "squares")
    model.node("ReduceMean", ["squares", "axes"], "mean")
    model.node("Add", ["mean", "epsilon"], "sum")
    model.node("Sqrt", ["sum"], "root")
    model.node("Div", [x, "root"], "normal")
    return model.node("Mul", ["normal", "scale"], "normed")


def gated(model: Model, x: str, *, halves: bool, swapped: bool = False) -> str:
    """SiLU of one product of ``x`` times another, of both as one product where they are ``halves``."""
    if halves:
        both = model.product(x, "both", 2 * HIDDEN, WIDTH)
        model.nodes.append(split(both, "gate", "up"))
        gate, up = ("up", "gate") if swapped else ("gate", "up")
    else:
        gate, up = (model.product(x, name, HIDDEN, WIDTH) for name in ("gate", "up"))
    model.node("Sigmoid", [gate], "sigmoid")
    model.node("Mul", [gate, "sigmoid"], "silu")
    return model.node("Mul", ["silu", up], "hidden")


def split(x: str, *outputs: str) -> Any:
    from onnx import helper

    return helper.make_node("Split", [x], outputs, axis=-1, num_outputs=len(outputs))


def quantizers(result: Any) -> list[str]:
    return sorted(name.rstrip("0123456789") for name in result.kernels if "block_quantize" in name)


@pytest.mark.parametrize("halves", [True, False])
def test_a_norm_and_a_gate_are_computed_there(needs_avx2: None, halves: bool) -> None:
    model = Model()
    hidden = gated(model, normed(model, "x"), halves=halves)
    model.product(hidden, "down", WIDTH, HIDDEN)
    made = model.made({"x": ("float32", ["tokens", WIDTH])}, "down.y", ["tokens", WIDTH])
    result = lowered(made)
    assert quantizers(result) == ["rms_norm_block_quantize", "silu_block_quantize"]
    assert not any("sigmoid" in name or name.startswith("rms_norm1") for name in result.kernels)
    assert len(result.kernels) == 4
    for tokens in (1, 30):
        # Where a sum of a float32 differs in its last bit, an activation may become the next integer.
        compare(made, activations(tokens, WIDTH), result, tolerance=0.03)


def test_what_is_read_elsewhere_too_stays(needs_avx2: None) -> None:
    model = Model()
    norm = normed(model, "x")
    model.product(norm, "y", WIDTH, WIDTH)
    model.node("Add", ["y.y", norm], "last")
    made = model.made({"x": ("float32", ["tokens", WIDTH])}, "last", ["tokens", WIDTH])
    result = lowered(made)
    assert quantizers(result) == ["block_quantize"]
    compare(made, activations(5, WIDTH), result, tolerance=0.03)


def test_the_gate_must_be_the_first_half(needs_avx2: None) -> None:
    model = Model()
    hidden = gated(model, "x", halves=True, swapped=True)
    model.product(hidden, "down", WIDTH, HIDDEN)
    made = model.made({"x": ("float32", ["tokens", WIDTH])}, "down.y", ["tokens", WIDTH])
    result = lowered(made)
    assert quantizers(result) == ["block_quantize", "block_quantize"]
    compare(made, activations(5, WIDTH), result, tolerance=0.03)
