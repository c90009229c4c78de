"""What a build does when something goes wrong: one clear error, and no trace of the attempt."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import assay.compile.build as build_module
import assay.compile.emit as emit_module
import assay.compile.targets.native as native
import assay.compile.variant as variant_module
import assay.compile.verification as verification_module
import assay.runtime.cpu as cpu
from assay.compile.build import BuildResult, build_artifact
from assay.compile.converters import CONVERTERS
from assay.compile.targets import targets
from assay.errors import (
    AssayError,
    ExternalDataError,
    MissingDependencyError,
    ModelError,
    StorageError,
    UnsupportedOperatorError,
    VerificationError,
)
from assay.models.registry import find_model
from assay.runtime.artifact import open_artifact

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]


class Place:
    """A cache and an output of their own, to see what is left in them."""

    def __init__(self, folder: Path) -> None:
        self.cache, self.output = folder / "cache", folder / "out"

    def build(self, path: Path, **options: Any) -> BuildResult:
        spec = find_model(str(path))
        return build_artifact(spec, target="x86-64-v3", cache=self.cache, output=self.output, **options)

    def assert_clean(self) -> None:
        """Nothing in the output, no artifact and no scratch in the cache."""
        assert not self.output.exists()
        left = [p for p in (self.cache / "artifacts").glob("*") if p.suffix != ".lock"]
        assert left == []
        assert list(self.cache.rglob(".*")) == []


@pytest.fixture
def place(tmp_path: Path, needs_avx2: None) -> Place:
    return Place(tmp_path)


def save_externally(path: Path, location: str) -> None:
    """A model whose one weight lies in another file."""
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=onnx.TensorProto.FLOAT, data_location=1)
    tensor.external_data.add(key="location", value=location)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node("Add", ["x", "w"], ["y"])], "g", [value("x", 1, [4])], [value("y", 1, [4])], [tensor]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "content", [b"", b"a letter to a friend\n", b"\x7fELF\x02\x01\x01", bytes(range(256))], ids=str
)
def test_file_that_is_not_onnx(place: Place, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        place.build(path)
    place.assert_clean()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated_file(place: Place, perceptron_file: Path, part: float) -> None:
    content = perceptron_file.read_bytes()
    perceptron_file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelError):
        place.build(perceptron_file)
    place.assert_clean()


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/hostname", "link.bin"])
def test_external_data_missing_outside_or_behind_a_link(place: Place, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    save_externally(folder / "model.onnx", location)
    with pytest.raises(ExternalDataError, match="'w'"):
        place.build(folder / "model.onnx")
    place.assert_clean()


def test_unsupported_operator(place: Place, make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(
        [node("Relu", ["x"], ["h"]), node("Det", ["h"], ["y"], name="determinant")], {"x": [3, 3]}, {"y": []}
    )
    onnx.save_model(model, tmp_path / "model.onnx")
    with pytest.raises(UnsupportedOperatorError, match=r"Det \(node 'determinant'\)"):
        place.build(tmp_path / "model.onnx")
    place.assert_clean()


def test_model_that_the_reference_cannot_run(place: Place, make_model: MakeModel, tmp_path: Path) -> None:
    """A reshape that fits only some sizes of a dimension that is declared free."""
    model = make_model(
        [node("Reshape", ["x", "shape"], ["y"])],
        {"x": ["n", 3]},
        {"y": [None, 4]},
        {"shape": np.array([-1, 4])},
    )
    onnx.save_model(model, tmp_path / "model.onnx")
    with pytest.raises(
        AssayError, match=r"cannot run the model|cannot be compiled|the compiler failed"
    ) as raised:
        place.build(tmp_path / "model.onnx")
    assert "Traceback" not in str(raised.value)
    place.assert_clean()


def wrong(add: float) -> Callable[..., Any]:
    """A converter of Relu that is off by ``add``."""

    def convert(builder: Any, inputs: Any, attributes: Any, opset: int) -> Any:
        from tvm import relax

        return relax.op.add(builder.emit(relax.op.nn.relu(inputs[0])), relax.const(np.float32(add)))

    return convert


def test_operator_that_computes_something_else_is_named(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONVERTERS, "Relu", wrong(0.1))  # type: ignore[misc]
    with pytest.raises(VerificationError) as raised:
        place.build(perceptron_file)
    assert "'y'" in raised.value.message
    assert "first operator that diverges is Relu (node 'activation')" in raised.value.message
    assert "Nothing was written" in (raised.value.hint or "")
    place.assert_clean()


def test_nan_that_the_reference_has_not(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONVERTERS, "Relu", wrong(float("nan")))  # type: ignore[misc]
    with pytest.raises(VerificationError, match=r"'y'.* has NaN .* Relu \(node 'activation'\)"):
        place.build(perceptron_file)
    place.assert_clean()


def test_operator_is_found_with_instructions_that_the_machine_has(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a target that cannot run here its stand-in is searched; the target's own code would be illegal."""
    found = cpu.detect_cpu()
    features = frozenset(f for f in found.features if not f.startswith("avx512"))
    fake = dataclasses.replace(found, features=features)
    monkeypatch.setattr(cpu, "detect_cpu", lambda: fake)
    monkeypatch.setattr(native, "detect_cpu", lambda: fake)
    monkeypatch.setitem(CONVERTERS, "Relu", wrong(0.1))  # type: ignore[misc]
    searched = []
    original = verification_module.first_divergence

    def search(canonical: Any, cases: Any, target: Any) -> str:
        searched.append(target.features)
        return original(canonical, cases, target)

    monkeypatch.setattr(verification_module, "first_divergence", search)
    spec = find_model(str(perceptron_file))
    with pytest.raises(VerificationError, match="Relu"):
        build_artifact(spec, target="x86-64-v4", cache=place.cache, output=place.output)
    assert searched == [targets()["x86-64-v3"].features]
    place.assert_clean()


def test_fault_that_only_fusion_has(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([0.1])
    monkeypatch.setitem(  # type: ignore[misc]
        CONVERTERS, "Relu", lambda *arguments: wrong(next(faults, 0.0))(*arguments)
    )
    with pytest.raises(VerificationError, match="without fusion no operator diverges"):
        place.build(perceptron_file)
    place.assert_clean()


def test_crash_of_the_compiled_model_does_not_end_the_build(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What crashed once is not run again in this process to look for the operator."""

    def crash(*_: Any, **__: Any) -> Any:
        raise VerificationError("The compiled model cannot be run: it crashed with signal 11")

    monkeypatch.setattr(verification_module, "run_artifact", crash)
    monkeypatch.setattr(verification_module, "first_divergence", lambda *_: pytest.fail("ran what crashes"))
    with pytest.raises(VerificationError, match="signal 11"):
        place.build(perceptron_file)
    place.assert_clean()


def test_exception_of_the_compiler_becomes_one_sentence(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch, tvm: Any
) -> None:
    import assay.compile.schedules.dispatch as dispatch

    def fail(*_: Any) -> Any:
        raise tvm.error.InternalError("Check failed: extent > 0\nin file schedule.cc\n")

    monkeypatch.setattr(dispatch, "schedule_function", fail)
    with pytest.raises(AssayError) as raised:
        place.build(perceptron_file)
    assert raised.value.message == (
        "The step 'schedule' of the compiler failed with InternalError: Check failed: extent > 0."
    )
    place.assert_clean()


class Interrupted:
    """A progress that raises at the start of one step."""

    def __init__(self, step: str, error: BaseException) -> None:
        self.at, self.error = step, error

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if name == self.at:
            raise self.error
        yield


@pytest.mark.parametrize("step", ["load ONNX", "generate code", "verify", "write artifact"])
def test_interrupt_leaves_nothing_and_the_next_build_works(
    place: Place, perceptron_file: Path, step: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        place.build(perceptron_file, progress=Interrupted(step, KeyboardInterrupt()))
    place.assert_clean()
    if step == "verify":
        assert place.build(perceptron_file).manifest.levels[0].executed == "native"


def test_interrupt_keeps_the_artifact_that_was_there(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.build(perceptron_file).manifest
    monkeypatch.setattr(
        build_module, "write_artifact", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt())
    )
    # Another profile: an unchanged build writes nothing.
    with pytest.raises(KeyboardInterrupt):
        place.build(perceptron_file, profile="debug")
    assert open_artifact(place.output).manifest == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_weights_that_cannot_be_written(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(variant_module, "save_weights", fail)
    with pytest.raises(StorageError, match=os.strerror(number)):
        place.build(perceptron_file)
    place.assert_clean()


@pytest.mark.parametrize(
    ("status", "message", "kind", "found"),
    [
        (1, "ld.lld: error: failed to open model.so: No space left on device", StorageError, "No space left"),
        (-25, "", StorageError, "status -25"),
        (1, "ld.lld: error: undefined hidden symbol: f", AssayError, "linker failed: .*undefined hidden"),
        (1, "python: No module named ziglang", MissingDependencyError, "ziglang"),
    ],
    ids=["no space", "file size limit", "error", "not installed"],
)
def test_linker_that_fails(
    place: Place, perceptron_file: Path, monkeypatch: pytest.MonkeyPatch,
    status: int, message: str, kind: type[AssayError], found: str,
) -> None:  # fmt: skip
    done = subprocess.CompletedProcess([], status, "", message)
    monkeypatch.setattr(emit_module.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(kind, match=found) as raised:
        place.build(perceptron_file)
    assert type(raised.value) is kind
    place.assert_clean()


def test_cache_that_cannot_be_written(perceptron_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="cache"):
        Place(tmp_path).build(perceptron_file)


PROGRAM = """
import resource, sys
from contextlib import contextmanager
from pathlib import Path
from assay.compile.build import build_artifact
from assay.errors import AssayError
from assay.models.registry import find_model

class Told:
    @contextmanager
    def step(self, name):
        print(name, flush=True)
        yield

path, cache, output, limit = sys.argv[1:]
spec = find_model(path)
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
try:
    result = build_artifact(
        spec, target="x86-64-v3", cache=Path(cache), output=Path(output), progress=Told()
    )
    print("cached" if result.cached else "built")
except AssayError as error:
    print(type(error).__name__)
"""


def start(place: Place, path: Path, output: Path | None = None, limit: int = 0) -> subprocess.Popen[str]:
    """A build in a process of its own, which prints each step and at last what came of it."""
    arguments = [str(path), str(place.cache), str(output or place.output), str(limit)]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["generate code", "link", "verify", "write artifact"])
def test_killed_build_leaves_no_obstacle(place: Place, perceptron_file: Path, step: str) -> None:
    with start(place, perceptron_file) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == step:
                process.kill()
                break
    assert process.returncode == -9
    assert not place.output.exists() or open_artifact(place.output)
    result = place.build(perceptron_file)
    assert open_artifact(place.output).manifest == result.manifest
    assert [p for p in (place.cache / "artifacts").iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
def test_two_processes_build_the_same_model_at_once(
    place: Place, perceptron_file: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "first", tmp_path / "second"]
    processes = [start(place, perceptron_file, output) for output in outputs]
    results = [process.communicate(timeout=120)[0].split("\n")[-2] for process in processes]
    assert sorted(results) == ["built", "cached"]
    first, second = (open_artifact(output).manifest for output in outputs)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1_000, 6_000, 1_000_000])
def test_limit_on_file_sizes(place: Place, perceptron_file: Path, limit: int) -> None:
    """Too little for the canonical model, for the library, and for the runtime that goes with it."""
    output, _ = start(place, perceptron_file, limit=limit).communicate(timeout=120)
    assert output.split("\n")[-2] == "StorageError"
    place.assert_clean()
