"""What the compiler makes of the micro-kernel: the inner loops, read from the assembly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.schedules.tiles import choose_panel_width, choose_tile
from assay.compile.targets import targets

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]


def assembly(model: onnx.ModelProto, target: str) -> str:
    """The assembly of a model, in AT&T syntax; it need not run on this machine."""
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    lowered = lower(
        import_onnx(model),
        target=targets()[target],
        profile=profiles()["release"],
        sizes={"batch": 128},
        maxima={"batch": 512},
    )
    return str(_llvm(lowered.executable.mod).inspect_source("asm"))


def _llvm(module: Any) -> Any:
    if module.kind == "llvm":
        return module
    return next(found for inner in module.imports if (found := _llvm(inner)) is not None)


def loops(text: str) -> Iterator[list[str]]:
    """The instructions of each innermost loop: from a label to the jump back to it, no label between."""
    label, body = "", list[str]()
    for line in text.splitlines():
        # Other labels mark places for the debugger, to which nothing jumps.
        if found := re.match(r"(\.LBB\w+):", line):
            label, body = found[1], []
        elif line.startswith("\t") and not line.startswith("\t."):
            body.append(line.strip())
            if label and re.fullmatch(rf"j\w+\s+{re.escape(label)}", line.strip()):
                yield body
                label, body = "", []


def products(body: list[str]) -> list[str]:
    """The instructions that multiply vectors of float32: fused multiply-adds, or multiplications."""
    return [line for line in body if line.startswith(("vfmadd", "mulps"))]


def hottest(text: str) -> list[str]:
    """The innermost loop with the most multiply-adds."""
    return max(loops(text), key=lambda body: len(products(body)))


@pytest.fixture(scope="module")
def product(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    w = np.ones((256, 384), np.float32)
    return make_model(
        [node("MatMul", ["x", "w"], ["y"])], {"x": ["batch", 256]}, {"y": ["batch", 384]}, {"w": w}
    )


@pytest.fixture(scope="module")
def small_product(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    """Weights that stay in L2: between two fetches of a panel, LLVM may unroll the steps of K further."""
    w = np.ones((256, 192), np.float32)
    return make_model(
        [node("MatMul", ["x", "w"], ["y"])], {"x": ["batch", 256]}, {"y": ["batch", 192]}, {"w": w}
    )


@pytest.fixture(scope="module")
def convolution(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    w = np.ones((64, 64, 3, 3), np.float32)
    conv = node("Conv", ["x", "w"], ["y"], pads=[1] * 4, strides=[2, 2])
    return make_model([conv], {"x": [1, 64, 56, 56]}, {"y": [1, 64, 28, 28]}, {"w": w})


@pytest.fixture(scope="module")
def few_channels(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    w = np.ones((8, 32, 5, 5), np.float32)
    conv = node("Conv", ["x", "w"], ["y"], pads=[2] * 4)
    return make_model([conv], {"x": [1, 32, 28, 28]}, {"y": [1, 8, 28, 28]}, {"w": w})


@pytest.fixture(scope="module")
def attention(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    return make_model(
        [node("MatMul", ["q", "k"], ["y"])],
        {"q": ["batch", 128, 64], "k": ["batch", 64, 128]},
        {"y": ["batch", 128, 128]},
    )


LEVELS = [("x86-64-v2", "xmm"), ("x86-64-v3", "ymm"), ("x86-64-v4", "zmm"), ("x86-64-v4-vnni", "zmm")]


@pytest.fixture(scope="module")
def assembly_of(request: pytest.FixtureRequest) -> Callable[[str, str], str]:
    """The assembly of a model, by the name of its fixture, for a target; compiled once."""
    return cache(lambda name, target: assembly(request.getfixturevalue(name), target))


@pytest.mark.parametrize("name", ["product", "convolution", "attention"])
@pytest.mark.parametrize(("target", "register"), LEVELS)
def test_inner_loop_multiplies_and_adds_in_registers(
    assembly_of: Callable[[str, str], str], name: str, target: str, register: str
) -> None:
    body = hottest(assembly_of(name, target))
    multiply_adds = products(body)
    assert len(multiply_adds) >= 8
    assert all(f"%{register}" in line for line in multiply_adds)
    if target == "x86-64-v2":
        assert sum(line.startswith("addps") for line in body) == len(multiply_adds)
    # A vector that is stored, or anything on the stack, is an accumulator that did not fit.
    spills = [line for line in body if re.search(rf"%{register}\d+, .*\)$|\(%rsp", line)]
    assert spills == []


def test_tile_of_one_vector_keeps_all_its_rows_in_registers(assembly_of: Callable[[str, str], str]) -> None:
    body = hottest(assembly_of("few_channels", "x86-64-v3"))
    assert len(products(body)) >= 8
    # Where pixels lie, of which there are more than registers for addresses, may be on the stack.
    assert [line for line in body if re.search(r"%ymm\d+, .*\)$|\(%rsp.*%ymm", line)] == []


@pytest.mark.parametrize(("target", "register"), LEVELS)
def test_inner_loop_has_one_product_for_each_accumulator_of_the_tile(
    assembly_of: Callable[[str, str], str], target: str, register: str
) -> None:
    unit = targets()[target].vector_unit
    width = choose_panel_width(unit, 128, 192)
    tile = choose_tile(unit, 128, width, 256)
    accumulators = tile.rows * width // unit.lanes()
    multiply_adds = products(hottest(assembly_of("small_product", target)))
    assert len(multiply_adds) == accumulators * tile.unroll
    if unit.fma:
        assert len({line.rpartition("%")[2] for line in multiply_adds}) == accumulators


# What code for a level must not have: instructions of the levels above.
ABOVE = {
    "x86-64-v2": r"\tv\w+\s|%[yz]mm|\t(?:andn|bextr|bls\w+|mulx|rorx|s[ahr][lr]x|pdep|pext|lzcnt)[lq]?\s",
    "x86-64-v3": r"%zmm|%[xy]mm(?:1[6-9]|[23]\d)|%k[0-7]|\tvpdp",
    "x86-64-v4": r"\tvpdp",
    "x86-64-v4-vnni": r"\ttile|\ttdp",
}


@pytest.mark.parametrize("name", ["product", "convolution", "attention"])
@pytest.mark.parametrize("target", ABOVE)
def test_code_has_no_instructions_of_higher_levels(
    assembly_of: Callable[[str, str], str], name: str, target: str
) -> None:
    text = assembly_of(name, target)
    assert re.findall(ABOVE[target], text) == []
    # The expression finds them where they are.
    if target == "x86-64-v2":
        assert re.search(ABOVE[target], assembly_of(name, "x86-64-v3"))
    if target == "x86-64-v3":
        assert re.search(ABOVE[target], assembly_of(name, "x86-64-v4"))


@pytest.fixture(scope="module")
def quantized(tvm: Any, make_model: MakeModel) -> Callable[[str], onnx.ModelProto]:
    """A matrix product or a convolution between QuantizeLinear and DequantizeLinear."""
    generator = np.random.default_rng(0)

    def make(kind: str) -> onnx.ModelProto:
        shape = (256, 384) if kind == "MatMul" else (64, 64, 3, 3)
        operator = node(kind, ["xd", "wd"], ["p"], **({} if kind == "MatMul" else {"pads": [1] * 4}))
        nodes = [
            node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
            operator,
            node("QuantizeLinear", ["p", "ys", "yz"], ["pq"]),
            node("DequantizeLinear", ["pq", "ys", "yz"], ["y"]),
        ]
        weights = {
            "xs": np.float32(0.02),
            "xz": np.uint8(128),
            "w": generator.integers(-127, 128, shape).astype(np.int8),
            "ws": np.float32(0.01),
            "wz": np.int8(0),
            "ys": np.float32(0.5),
            "yz": np.uint8(128),
        }
        sizes = ([128, 256], [128, 384]) if kind == "MatMul" else ([1, 64, 28, 28], [1, 64, 28, 28])
        return make_model(nodes, {"x": sizes[0]}, {"y": sizes[1]}, weights)

    return make


@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
@pytest.mark.parametrize(
    ("target", "instruction", "register"),
    [
        ("x86-64-v2", r"pmadd\w+", "xmm"),
        ("x86-64-v3", r"vpmadd\w+", "ymm"),
        ("x86-64-v4", r"vpmadd\w+", "zmm"),
        ("x86-64-v4-vnni", "vpdpbusd", "zmm"),
    ],
)
def test_inner_loop_multiplies_bytes_with_the_instructions_of_the_level(
    quantized: Callable[[str], onnx.ModelProto], kind: str, target: str, instruction: str, register: str
) -> None:
    text = assembly(quantized(kind), target)
    body = max(loops(text), key=lambda lines: sum(bool(re.match(instruction, line)) for line in lines))
    multiply_adds = [line for line in body if re.match(instruction, line)]
    assert len(multiply_adds) >= 8
    assert all(f"%{register}" in line for line in multiply_adds)
    if instruction == "vpdpbusd":
        # Elsewhere LLVM adds the products of several steps before it adds them to the sums, and so needs more
        # registers than there are: it keeps a few on the stack, and that was measured to cost nothing.
        assert [line for line in body if re.search(rf"%{register}\d+, .*\)$|\(%rsp", line)] == []
