"""Targets for other machines than x86-64: what the compiler makes of them, and what an emulator computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache as memoized
from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.cache import BuildCache
from assay.compile.decoders.interface import DecoderOptions
from assay.compile.decoders.verification import cases_with_tolerance
from assay.compile.emulation.user_mode import find_user_mode
from assay.compile.targets import targets
from assay.compile.verify import compare_outputs
from assay.models.registry import find_model
from assay.progress import SilentProgress
from assay.runtime.artifact import open_artifact
from assay.runtime.manifest import Execution

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
ARM = ("aarch64-neon", "aarch64-neon-dotprod", "aarch64-neon-i8mm")
OTHERS = (*ARM, "riscv64-rvv")


@pytest.fixture(scope="module")
def mixed(make_model: MakeModel) -> onnx.ModelProto:
    """A convolution and a product of 8-bit integers, a 3x3 convolution, float16 weights, a softmax."""
    generator = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "f"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        node("DequantizeLinear", ["rq", "s", "z"], ["rd"]),
        node("DequantizeLinear", ["g", "gs", "gz"], ["gd"], axis=0),
        node("Conv", ["rd", "gd"], ["d"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("QuantizeLinear", ["d", "s", "z"], ["dq"]),
        node("DequantizeLinear", ["dq", "s", "z"], ["dd"]),
        node("GlobalAveragePool", ["dd"], ["m"]),
        node("Flatten", ["m"], ["t"]),
        node("QuantizeLinear", ["t", "s", "z"], ["tq"]),
        node("DequantizeLinear", ["tq", "s", "z"], ["td"]),
        node("DequantizeLinear", ["w", "gs0", "gz0"], ["wd"]),
        node("MatMul", ["td", "wd"], ["p"]),
        node("Cast", ["h"], ["hf"], to=onnx.TensorProto.FLOAT),
        node("MatMul", ["p", "hf"], ["o"]),
        node("Softmax", ["o"], ["y"], axis=1),
    ]
    weights = {
        "f": generator.standard_normal((20, 3, 3, 3)).astype(np.float32) / 5,
        "s": np.float32(0.03),
        "z": np.uint8(90),
        "g": generator.integers(-63, 64, (24, 20, 3, 3)).astype(np.int8),
        "gs": (generator.random(24) / 1000 + 1e-4).astype(np.float32),
        "gz": np.zeros(24, np.int8),
        "w": generator.integers(-63, 64, (24, 33)).astype(np.int8),
        "gs0": np.float32(0.01),
        "gz0": np.int8(0),
        "h": (generator.standard_normal((33, 10)) / 50).astype(np.float16),
    }
    return make_model(nodes, {"x": ["batch", 3, 14, 14]}, {"y": ["batch", 10]}, weights)


@pytest.fixture
def mixed_file(mixed: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "mixed.onnx"
    onnx.save_model(mixed, path)
    return path


@pytest.fixture(scope="module")
def assembly_of(mixed: onnx.ModelProto) -> Callable[[str], str]:
    """The assembly of the model for a target; compiled once."""
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    def compiled(target: str) -> str:
        lowered = lower(
            import_onnx(mixed),
            target=targets()[target],
            profile=profiles()["release"],
            sizes={"batch": 4},
            maxima={"batch": 16},
        )
        return str(lowered.executable.inspect_source("asm"))

    return memoized(compiled)


def count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


@pytest.mark.parametrize("target", ARM)
def test_neon_multiplies_and_adds_whole_registers_of_float32(
    assembly_of: Callable[[str], str], target: str
) -> None:
    text = assembly_of(target)
    assert count(r"\tfmla\tv\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]", text) >= 100
    assert count(r"\tfcvtl\tv\d+\.4s, v\d+\.4h", text) >= 1  # float16 weights
    assert count(r"\b(z\d+\.s|p\d+/m)", text) == 0  # of SVE, which these cores lack


@pytest.mark.parametrize(
    ("target", "instruction", "others"),
    [
        ("aarch64-neon", r"\tsmlal2?\tv\d+\.4s", r"\t(sdot|udot|usdot)\t"),
        ("aarch64-neon-dotprod", r"\tsdot\tv\d+\.4s, v\d+\.16b", r"\tusdot\t"),
        ("aarch64-neon-i8mm", r"\tusdot\tv\d+\.4s, v\d+\.16b", r"\tsdot\t"),
        ("riscv64-rvv", r"\tvwmacc\w*\.\w\w\t|\tvwmul", r"\tvqdot"),
    ],
)
def test_integers_are_multiplied_by_the_instruction_of_the_level(
    assembly_of: Callable[[str], str], target: str, instruction: str, others: str
) -> None:
    text = assembly_of(target)
    assert count(instruction, text) >= 40
    assert count(others, text) == 0


def test_riscv_multiplies_and_adds_in_vectors(assembly_of: Callable[[str], str]) -> None:
    text = assembly_of("riscv64-rvv")
    assert count(r"\tvfmacc\.v[fv]\t", text) >= 100
    assert count(r"\tvle32\.v\t", text) >= 10
    assert count(r"\tvsetivli\tzero, 4, e32, m1", text) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("target", OTHERS)
def test_builds_agree_with_onnx_runtime_under_an_emulator(mixed_file: Path, cache: Path, target: str) -> None:
    if find_user_mode(targets()[target]) is None:
        pytest.skip("needs QEMU's user mode, which ci/emulator.sh installs")
    manifest = build_artifact(find_model(str(mixed_file)), target=target, cache=cache).manifest
    (level,) = manifest.levels
    assert level.executed is Execution.EMULATED
    assert targets()[target].emulator[0] in (level.verification.note or "")
    assert level.entry.driver == "plan-cpu"
    assert manifest.tvm_runtime is None
    assert len({case.sizes["batch"] for case in level.verification.cases}) > 1
    assert max(case.max_absolute_error for case in level.verification.cases) < 1e-4


@pytest.mark.slow
def test_code_for_vectors_of_128_bits_runs_on_longer_ones(mixed_file: Path, cache: Path) -> None:
    emulator = find_user_mode(targets()["riscv64-rvv"])
    if emulator is None:
        pytest.skip("needs QEMU's user mode, which ci/emulator.sh installs")
    spec = find_model(str(mixed_file))
    path = build_artifact(spec, target="riscv64-rvv", cache=cache).path
    canonical = BuildCache(cache).canonical(spec, SilentProgress())
    cases, tolerance = cases_with_tolerance(canonical, DecoderOptions(), [])
    for bits in (256, 512):
        longer = ("qemu-riscv64", "-cpu", f"rv64,v=true,vext_spec=v1.0,vlen={bits}")
        outputs = replace(emulator, command=longer).run(path, cases)
        assert compare_outputs(outputs, cases, tolerance)


@pytest.mark.slow
def test_levels_of_one_machine_join_in_one_artifact(mixed_file: Path, cache: Path) -> None:
    """The native runtime takes the last level that the emulated core has."""
    emulator = find_user_mode(targets()["aarch64-neon-dotprod"])
    if emulator is None:
        pytest.skip("needs QEMU's user mode, which ci/emulator.sh installs")
    spec = find_model(str(mixed_file))
    path = build_artifact(
        spec, target="aarch64-neon,aarch64-neon-dotprod,aarch64-neon-i8mm", cache=cache
    ).path
    assert [level.executed for level in open_artifact(path).manifest.levels] == [Execution.EMULATED] * 3
    canonical = BuildCache(cache).canonical(spec, SilentProgress())
    cases, tolerance = cases_with_tolerance(canonical, DecoderOptions(), [])
    for core in ("cortex-a72", "neoverse-n1", "max"):
        outputs = replace(emulator, command=("qemu-aarch64", "-cpu", core)).run(path, cases[:1])
        assert compare_outputs(outputs, cases[:1], tolerance)


def test_without_the_emulator_code_counts_as_never_executed(
    monkeypatch: pytest.MonkeyPatch, perceptron_file: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("assay.compile.emulation.user_mode.shutil.which", lambda name, path: None)
    spec = find_model(str(perceptron_file))
    (level,) = build_artifact(spec, target="aarch64-neon", cache=tmp_path).manifest.levels
    assert level.executed is Execution.NEVER
    assert "never executed" in (level.verification.note or "")
    assert level.verification.cases == ()
