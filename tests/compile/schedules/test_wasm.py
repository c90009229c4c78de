"""What the compiler makes of the schedules for WebAssembly: the innermost loops, read from the assembly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.schedules.tiles import choose_panel_width, choose_tile
from assay.compile.targets import targets

node = onnx.helper.make_node


def loops(text: str) -> Iterator[list[str]]:
    """The instructions of each innermost loop, in LLVM's assembly."""
    body: list[str] | None = None
    for line in text.splitlines():
        instruction = line.strip().split("#")[0].strip()
        if re.match(r"loop\b", instruction):
            body = []
        elif instruction == "end_loop":
            if body is not None:
                yield body
            body = None
        elif body is not None and line.startswith("\t") and not instruction.startswith("."):
            body.append(instruction)


def count(body: list[str], pattern: str) -> int:
    return sum(bool(re.match(pattern, instruction)) for instruction in body)


def hottest(text: str, pattern: str) -> list[str]:
    return max(loops(text), key=lambda body: count(body, pattern))


def assembly(module: Any, target: str, **sizes: int) -> str:
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    lowered = lower(
        module,
        target=targets()[target],
        profile=profiles()["release"],
        sizes=sizes,
        maxima=dict.fromkeys(sizes, 512),
    )
    assert lowered.unscheduled == ()
    return str(lowered.executable.inspect_source("asm"))


@pytest.fixture(scope="module")
def models(tvm: Any, make_model: Any) -> dict[str, onnx.ModelProto]:
    w = np.ones((256, 384), np.float32)
    f = np.ones((64, 64, 3, 3), np.float32)
    quantizing = {
        "xs": np.float32(0.02), "xz": np.uint8(128), "w": np.ones((256, 384), np.int8),
        "ws": np.float32(0.01), "wz": np.int8(0), "ys": np.float32(0.5), "yz": np.uint8(128),
    }  # fmt: skip
    quantized = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["p"]),
        node("QuantizeLinear", ["p", "ys", "yz"], ["pq"]),
        node("DequantizeLinear", ["pq", "ys", "yz"], ["y"]),
    ]
    conv = node("Conv", ["x", "f"], ["y"], pads=[1] * 4, strides=[2, 2])
    return {
        "product": make_model(
            [node("MatMul", ["x", "w"], ["y"])], {"x": ["batch", 256]}, {"y": ["batch", 384]}, {"w": w}
        ),
        "convolution": make_model([conv], {"x": [1, 64, 56, 56]}, {"y": [1, 64, 28, 28]}, {"f": f}),
        "softmax": make_model([node("Softmax", ["x"], ["y"])], {"x": ["batch", 512]}, {"y": ["batch", 512]}),
        "gelu": make_model(
            [node("Gelu", ["x"], ["y"])], {"x": ["batch", 512]}, {"y": ["batch", 512]}, opset=20
        ),
        "quantized": make_model(quantized, {"x": [128, 256]}, {"y": [128, 384]}, quantizing),
    }


@pytest.fixture(scope="module")
def assembly_of(models: dict[str, onnx.ModelProto]) -> Any:
    from assay.compile.importer import import_onnx

    @cache
    def make(name: str, target: str = "wasm32-simd") -> str:
        return assembly(import_onnx(models[name]), target, batch=128)

    return make


SCALAR = r"f32\.(mul|add|sub|load|store)|i32\.mul"


@pytest.mark.parametrize("name", ["product", "convolution"])
@pytest.mark.parametrize(
    ("target", "pattern", "other"),
    [
        ("wasm32-simd", r"f32x4\.mul", r"f32x4\.add"),
        ("wasm32-relaxed-simd", r"f32x4\.relaxed_madd", r"f32x4\.(mul|add)"),
    ],
)
def test_contractions_multiply_vectors(
    assembly_of: Any, name: str, target: str, pattern: str, other: str
) -> None:
    text = assembly_of(name, target)
    body = hottest(text, pattern)
    products = count(body, pattern)
    assert products >= 8
    assert count(body, other) == (products if target == "wasm32-simd" else 0)
    assert count(body, r"v128\.load\b") > 0
    assert count(body, r"v128\.load32_splat") > 0
    assert count(body, SCALAR) == 0
    # Accumulators are locals: nothing is stored between the steps of K.
    assert count(body, r"v128\.store") == 0
    assert ("relaxed" in text) == (target == "wasm32-relaxed-simd")


@pytest.mark.parametrize("target", ["wasm32-simd", "wasm32-relaxed-simd"])
def test_one_product_for_each_accumulator_of_the_tile(assembly_of: Any, target: str) -> None:
    unit = targets()[target].vector_unit
    width = choose_panel_width(unit, 128, 384)
    tile = choose_tile(unit, 128, width, 256)
    body = hottest(assembly_of("product", target), r"f32x4\.(mul|relaxed_madd)")
    assert count(body, r"f32x4\.(mul|relaxed_madd)") == tile.rows * width // 4 * tile.unroll


@pytest.mark.parametrize("name", ["softmax", "gelu"])
def test_elementwise_loops_are_of_vectors(assembly_of: Any, name: str) -> None:
    body = hottest(assembly_of(name), r"f32x4\.")
    assert count(body, r"f32x4\.mul") >= 4
    assert count(body, r"v128\.load") > 0
    assert count(body, SCALAR) == 0
    # The mathematics is our own, in vectors: no host function for each element.
    assert count(body, r"call\b") == 0


def test_bytes_are_multiplied_in_pairs(assembly_of: Any) -> None:
    body = hottest(assembly_of("quantized"), r"i32x4\.dot_i16x8_s")
    products = count(body, r"i32x4\.dot_i16x8_s")
    assert products >= 8
    assert count(body, r"i32x4\.add") == products
    assert count(body, r"i32x4\.mul") == count(body, SCALAR) == 0


@pytest.mark.parametrize("bits", [4, 8])
def test_block_products(tvm: Any, bits: int) -> None:
    from assay.compile.lower import llvm_target
    from assay.compile.plan.cpu import build_kernels
    from assay.compile.schedules.block_format import BlockWeights, pack_blocks, plan_format
    from assay.compile.schedules.block_values import block_matmul
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.dispatch import schedule_function

    target = targets()["wasm32-simd"]
    weights = BlockWeights(
        bits=bits, block=32, codes=np.ones((64, 128), np.uint8), scales=np.ones((64, 4), np.float32),
        zero_points=None,
    )  # fmt: skip
    form = plan_format(weights, target.vector_unit.lanes())
    a = tvm.te.placeholder((1, form.activations.row_bytes), "int8", name="a")
    b = tvm.te.placeholder(pack_blocks(weights, form).shape, "uint8", name="b")
    function = tvm.te.create_prim_func([a, b, block_matmul(a, b, form=form)])
    scheduled = schedule_function(function, ScheduleContext(unit=target.vector_unit))
    module = build_kernels(tvm.IRModule({"kernel": scheduled}), llvm_target(target))
    body = hottest(str(module.inspect_source("asm")), r"i32x4\.dot_i16x8_s")
    # A block of 32 K for each vector of four columns: two K of two columns are a product.
    assert count(body, r"i32x4\.dot_i16x8_s") % 16 == 0
    assert count(body, r"i32x4\.dot_i16x8_s") > 0
    assert count(body, r"i32x4\.mul|i16x8\.mul|i32\.mul") == 0


def test_integer_products_are_exact(tvm: Any, tmp_path: Any) -> None:
    """Block products in wasmtime, with the largest codes and activations, beside 64-bit integers."""
    pytest.importorskip("wasmtime")
    from assay.compile.emit_wasm import emit_wasm
    from assay.compile.lower import llvm_target
    from assay.compile.plan.cpu import build_kernels
    from assay.compile.schedules.block_format import BlockWeights, pack_blocks, plan_format
    from assay.compile.schedules.block_quantize import quantize_function
    from assay.compile.schedules.block_values import block_matmul
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.dispatch import schedule_function
    from assay.runtime.drivers.wasm_module import WasmModule

    target = targets()["wasm32-simd"]
    context = ScheduleContext(unit=target.vector_unit)
    generator = np.random.default_rng(0)
    for bits, rows in ((4, 1), (8, 6)):
        codes = generator.integers(0, 1 << bits, (24, 96)).astype(np.uint8)
        codes[0], codes[1] = (1 << bits) - 1, 0
        weights = BlockWeights(
            bits=bits, block=32, codes=codes, scales=np.ones((24, 3), np.float32), zero_points=None
        )
        form = plan_format(weights, target.vector_unit.lanes())
        packed = pack_blocks(weights, form)
        a = tvm.te.placeholder((rows, form.activations.row_bytes), "int8", name="a")
        b = tvm.te.placeholder(packed.shape, "uint8", name="b")
        product = tvm.te.create_prim_func([a, b, block_matmul(a, b, form=form)])
        kernels = tvm.IRModule(
            {
                "quantize": quantize_function(form.activations, [rows, 96], context),
                "product": schedule_function(product, context),
            }
        )
        library = build_kernels(kernels, llvm_target(target))
        module = WasmModule(emit_wasm(library, ["quantize", "product"], tmp_path / f"{bits}.wasm"))
        # Activations that are their own codes: 127 is in every block.
        x = generator.integers(-127, 128, (rows, 96)).astype(np.float32)
        x[:, ::32] = 127
        given = module.tensor(module.allocate(x.nbytes), x.shape, "float32")
        module.view(given)[...] = x
        held = module.tensor(module.allocate(packed.nbytes), packed.shape, "uint8")
        module.view(held)[...] = packed.view(np.uint8)
        quantized = module.tensor(
            module.allocate(rows * form.activations.row_bytes), (rows, form.activations.row_bytes), "int8"
        )
        out = module.tensor(module.allocate(rows * 24 * 4), (rows, 24), "float32")
        module.prepare("quantize", [given, quantized])()
        module.prepare("product", [quantized, held, out])()
        exact = x.astype(np.int64) @ (codes.astype(np.int64) - (1 << (bits - 1))).T
        np.testing.assert_array_equal(module.view(out), exact.astype(np.float32))
