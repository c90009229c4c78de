"""Products on AMX tiles: the walk over them, run as plain loops, and the instructions, read from assembly."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.schedules.amx import configuration
from assay.compile.targets import Target, targets
from assay.compile.targets.target import DotProduct

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
SCALE, ZERO = np.float32(0.02), 120


@pytest.fixture(scope="module")
def product(tvm: Any, make_model: MakeModel) -> Callable[..., onnx.ModelProto]:
    """x [batch, K] quantized to uint8, times int8 weights [K, N]."""

    def make(weights: Any, batch: int | str) -> onnx.ModelProto:
        nodes = [
            node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
            node("MatMul", ["xd", "wd"], ["p"]),
            node("Relu", ["p"], ["y"]),
        ]
        constants = {"xs": SCALE, "xz": np.uint8(ZERO), "w": weights, "ws": np.float32(1), "wz": np.int8(0)}
        shapes = {"x": [batch, weights.shape[0]]}, {"y": [batch, weights.shape[1]]}
        return make_model(nodes, *shapes, constants)

    return make


def llvm_module(module: Any) -> Any:
    if module.kind == "llvm":
        return module
    return next(found for inner in module.imports if (found := llvm_module(inner)) is not None)


def compiled(model: onnx.ModelProto, target: Target) -> Any:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    return lower(
        import_onnx(model),
        target=target,
        profile=profiles()["release"],
        sizes={"batch": 32},
        maxima={"batch": 64},
    )


def target_of_loops() -> Target:
    """A CPU with AVX2 that does what AMX does in plain loops."""
    able = targets()["x86-64-v3"]
    unit = replace(able.vector_unit, bits=512, registers=32, dot=DotProduct.TILES)
    return replace(able, vector_unit=unit)


@pytest.mark.parametrize(
    ("batch", "rows", "depth", "cols"),
    [
        (16, [16], 64, 32),
        (40, [40], 64, 32),
        (32, [32], 20, 32),
        (17, [17], 196, 33),
        ("batch", [1, 15, 16, 33, 64], 128, 100),
        ("batch", [5, 48], 132, 5),
    ],
)
def test_tiles_cover_every_row_column_and_step(
    tvm: Any, needs_avx2: None, product: Any, batch: int | str, rows: list[int], depth: int, cols: int
) -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(-128, 128, (depth, cols)).astype(np.int8)
    lowered = compiled(product(weights, batch), target_of_loops())
    panels = [array for array in lowered.weights.values() if array.dtype == np.int8]
    assert [panel.shape[2:] for panel in panels] == [(32, 4)]
    machine = tvm.relax.VirtualMachine(lowered.executable, tvm.cpu())
    kept = tuple(tvm.runtime.tensor(array) for array in lowered.weights.values())
    for count in rows:
        q = generator.integers(0, 256, (count, depth))
        x = ((q - ZERO) * SCALE).astype(np.float32)
        actual = machine["main"](tvm.runtime.tensor(x), kept).numpy()
        expected = np.maximum(((q - ZERO) @ weights.astype(np.int64)) * np.float64(SCALE), 0)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "outputs", "size", "kernel", "stride"),
    [(3, 40, 9, 3, 2), (32, 32, 7, 3, 1), (20, 33, 8, 5, 1), (64, 64, 8, 1, 2), (5, 70, 12, 3, 1)],
)
def test_tiles_cover_every_pixel_channel_and_tap(
    tvm: Any, needs_avx2: None, make_model: MakeModel,
    channels: int, outputs: int, size: int, kernel: int, stride: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(channels)
    filters = generator.integers(-128, 128, (outputs, channels, kernel, kernel)).astype(np.int8)
    extent, edge = (size - 1) // stride + 1, kernel // 2
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        node("Conv", ["xd", "wd"], ["y"], pads=[edge] * 4, strides=[stride, stride]),
    ]
    constants = {"xs": SCALE, "xz": np.uint8(ZERO), "w": filters, "ws": np.float32(1), "wz": np.int8(0)}
    shapes = {"x": [2, channels, size, size]}, {"y": [2, outputs, extent, extent]}
    model = make_model(nodes, *shapes, constants)
    lowered = compiled(model, target_of_loops())
    panels = [array for array in lowered.weights.values() if array.dtype == np.int8]
    assert [panel.shape[2:] for panel in panels] == [(32, 4)]
    q = generator.integers(0, 256, (2, channels, size, size)) - ZERO
    x = (q * SCALE).astype(np.float32)
    machine = tvm.relax.VirtualMachine(lowered.executable, tvm.cpu())
    kept = tuple(tvm.runtime.tensor(array) for array in lowered.weights.values())
    actual = machine["main"](tvm.runtime.tensor(x), kept).numpy()
    padded = np.pad(q, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    expected = np.einsum("nchwij,ocij->nohw", windows, filters.astype(np.int64))
    np.testing.assert_allclose(actual, expected * np.float64(SCALE), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("depth", "steps"), [(256, 4), (132, 3), (20, 1)])
def test_instructions_of_a_block(product: Any, depth: int, steps: int) -> None:
    """Four products, on four loads, for each step: those behind the first are a loop or unrolled."""
    lowered = compiled(product(np.ones((depth, 64), np.int8), 32), targets()["x86-64-v4-amx"])
    text = str(llvm_module(lowered.executable.mod).inspect_source("asm"))
    assert len(re.findall(r"\tldtilecfg\t", text)) == 1
    products = len(re.findall(r"\ttdpbusd\t", text))
    assert products in {4 * min(steps, 2), 4 * steps}
    assert len(re.findall(r"\ttileloadd\t", text)) == products
    assert len(re.findall(r"\ttilestored\t", text)) == 4
    assert len(re.findall(r"\ttilerelease\b", text)) == 1
    assert "vpdpbusd" not in text


def test_configuration_has_the_layout_of_palette_1() -> None:
    content = configuration(12)
    assert len(content) == 64
    assert content[:16] == [1, *[0] * 15]
    row_bytes = [content[16 + 2 * tile] + 256 * content[17 + 2 * tile] for tile in range(8)]
    assert row_bytes == [64, 64, 64, 64, 12, 12, 64, 64]
    assert content[48:56] == [16, 16, 16, 16, 16, 16, 3, 3]
    assert content[32:48] == [0] * 16
    assert content[56:] == [0] * 8
    assert configuration(64)[48:56] == [16] * 8
