"""What the compiler makes of the micro-kernel: the inner loops, read from the assembly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest

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
        if found := re.match(r"(\.\w+):", line):
            label, body = found[1], []
        elif line.startswith("\t") and not line.startswith("\t."):
            body.append(line.strip())
            if label and re.fullmatch(rf"j\w+\s+{re.escape(label)}", line.strip()):
                yield body
                label, body = "", []


def hottest(text: str) -> list[str]:
    """The innermost loop with the most multiply-adds."""
    return max(loops(text), key=lambda body: sum(line.startswith("vfmadd") for line in body))


@pytest.fixture(scope="module")
def product(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    w = np.ones((256, 384), np.float32)
    return make_model(
        [node("MatMul", ["x", "w"], ["y"])], {"x": ["batch", 256]}, {"y": ["batch", 384]}, {"w": w}
    )


@pytest.fixture(scope="module")
def convolution(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    w = np.ones((64, 64, 3, 3), np.float32)
    conv = node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    return make_model([conv], {"x": [1, 64, 28, 28]}, {"y": [1, 64, 28, 28]}, {"w": w})


@pytest.fixture(scope="module")
def attention(tvm: Any, make_model: MakeModel) -> onnx.ModelProto:
    return make_model(
        [node("MatMul", ["q", "k"], ["y"])],
        {"q": ["batch", 128, 64], "k": ["batch", 64, 128]},
        {"y": ["batch", 128, 128]},
    )


@pytest.mark.parametrize("name", ["product", "convolution", "attention"])
@pytest.mark.parametrize(("target", "register"), [("x86-64-v3", "ymm"), ("x86-64-v4", "zmm")])
def test_inner_loop_multiplies_and_adds_in_registers(
    request: pytest.FixtureRequest, name: str, target: str, register: str
) -> None:
    body = hottest(assembly(request.getfixturevalue(name), target))
    multiply_adds = [line for line in body if line.startswith("vfmadd")]
    assert len(multiply_adds) >= 8
    assert all(f"%{register}" in line for line in multiply_adds)
    # A vector that is stored, or anything on the stack, is an accumulator that did not fit.
    spills = [line for line in body if re.search(rf"%{register}\d+, .*\)$|\(%r[sb]p\)", line)]
    assert spills == []
