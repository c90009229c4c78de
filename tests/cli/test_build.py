"""The verb with the compiler replaced at its seam; test_end_to_end.py has the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import assay.compile.build
from assay.compile.build import BuildResult
from assay.errors import UnsupportedOperatorError, VerificationError


class Builds:
    """Stands in for the compiler: keeps what it was asked for, and fails where it is told to."""

    def __init__(self, manifest: Any) -> None:
        self.manifest = manifest
        self.calls: list[dict[str, Any]] = []
        self.errors: dict[str, BaseException] = {}

    def __call__(self, spec: Any, **options: Any) -> BuildResult:
        place = options["output"](options["scheme"] or "f32")
        self.calls.append({"spec": spec, **options, "output": place})
        if spec.name in self.errors:
            raise self.errors[spec.name]
        model = msgspec.structs.replace(self.manifest.model, name=spec.name)
        return BuildResult(
            path=place,
            manifest=msgspec.structs.replace(self.manifest, model=model),
            canonical=None,  # type: ignore[arg-type]
            seconds={"import": 1.5, "lower": 2.0},
        )


@pytest.fixture
def builds(manifest, monkeypatch) -> Builds:
    found = Builds(manifest)
    monkeypatch.setattr(assay.compile.build, "build_artifact", found)
    return found


def test_the_path_is_on_stdout_and_the_rest_on_stderr(cli, builds):
    result = cli("build", "silero-vad", "--target", "haswell")
    assert result.stdout == "artifacts/silero-vad-x86-64-v3-f32-release\n"
    assert "built in 3.5 s" in result.stderr
    assert "1 comparison, largest absolute error 1.0e-06" in result.stderr
    assert builds.calls[0]["target"] == ("haswell",)
    assert builds.calls[0]["scheme"] is None


def test_options_reach_the_build(cli, builds, tmp_path):
    cli(
        *("build", "silero-vad", "--target", "x86-64-v3", "--scheme", "f32", "--profile", "debug"),
        *("-o", tmp_path / "out", "--packed", "--cache", tmp_path / "cache"),
    )
    (call,) = builds.calls
    assert call["output"] == tmp_path / "out"
    assert (call["profile"], call["packed"], call["cache"]) == ("debug", True, tmp_path / "cache")


def test_quantization_takes_the_same_options_as_quantize(cli, builds, tmp_path):
    options = ("--override", "conv1=f32", "--override", "fc*=int8", "--calibration", tmp_path)
    cli("build", "silero-vad", "--target", "x86-64-v3", "--scheme", "int8-static", *options)
    (call,) = builds.calls
    assert (call["overrides"], call["calibration"]) == (("conv1=f32", "fc*=int8"), tmp_path)


def test_several_models_go_into_one_folder(cli, builds):
    cli("build", "silero-vad", "basic-pitch", "-o", "out", "--packed", "--target", "x86-64-v3")
    assert [call["output"] for call in builds.calls] == [
        Path("out/silero-vad.assay"),
        Path("out/basic-pitch.assay"),
    ]


def test_json(cli, builds):
    (found,) = cli.json("build", "silero-vad", "--target", "x86-64-v3")
    assert found["model"] == "silero-vad"
    assert found["seconds"] == {"import": 1.5, "lower": 2.0}
    assert found["levels"][0]["verification"]["cases"][0]["output"] == "y"


def test_one_that_fails_does_not_stop_the_others(cli, builds):
    builds.errors["silero-vad"] = VerificationError("Output 'y' differs.")
    builds.errors["light-vgg19"] = UnsupportedOperatorError("Scan cannot be compiled.")
    arguments = ("build", "silero-vad", "light-vgg19", "basic-pitch", "--target", "x86-64-v3")
    result = cli(*arguments, code=8)
    assert result.stdout == "artifacts/basic-pitch-x86-64-v3-f32-release\n"
    assert "Output 'y' differs." in result.stderr
    assert "Scan cannot be compiled." in result.stderr
    assert [found["model"] for found in cli.json(*arguments, code=8)] == ["basic-pitch"]


def test_an_interrupt_stops_all(cli, builds):
    builds.errors["silero-vad"] = KeyboardInterrupt()
    cli("build", "silero-vad", "basic-pitch", "--target", "x86-64-v3", code=130)
    assert len(builds.calls) == 1


def test_a_bug_stops_all(cli, builds):
    builds.errors["silero-vad"] = ZeroDivisionError("oh")
    assert "bug in Assay" in cli("build", "silero-vad", "basic-pitch", code=1).stderr


def test_what_was_not_executed_is_warned_about_however_quiet(cli, builds, manifest, never_executed):
    builds.manifest = msgspec.structs.replace(manifest, levels=(never_executed,))
    result = cli("build", "silero-vad", "--target", "x86-64-v4", "-q")
    assert result.stderr.startswith("warning: silero-vad")
    assert "never executed: no AVX-512" in result.stderr


def test_several_targets_make_one_artifact_of_several_levels(cli, builds, manifest, never_executed):
    high = msgspec.structs.replace(never_executed.target, name="x86-64-v4")
    levels = (manifest.levels[0], msgspec.structs.replace(never_executed, target=high))
    builds.manifest = msgspec.structs.replace(manifest, levels=levels)
    result = cli("build", "silero-vad", "--target", "skylake-avx512,haswell", "--target", "nehalem")
    assert result.stdout == "artifacts/silero-vad-x86-64-v2+x86-64-v3+x86-64-v4-f32-release\n"
    assert builds.calls[0]["target"] == ("skylake-avx512,haswell", "nehalem")
    assert "x86-64-v3: agrees with onnxruntime 1.0 in 1 comparison" in result.stderr
    assert "warning: silero-vad for x86-64-v4: Compiled, never executed" in result.stderr
    (found,) = cli.json("build", "silero-vad", "--target", "haswell,nehalem")
    assert [(level["target"], level["executed"]) for level in found["levels"]] == [
        ("x86-64-v3", "native"),
        ("x86-64-v4", "never"),
    ]
    assert cli.error("build", "silero-vad", "--target", "haswell,sparc", code=3)["message"]
    assert cli.error("build", "silero-vad", "--target", ",", code=2)["message"] == "No target is named."


def test_two_models_of_one_name_are_refused(cli, builds, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    paths = [tmp_path / folder / "model.onnx" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        onnx.save(helper.make_model(graph, ir_version=10), path)
    assert "same name" in cli.error("build", *paths, "-o", tmp_path, code=2)["message"]
    assert builds.calls == []


def test_options_of_language_models(cli, builds):
    cli("build", "gpt2-lm", "--cache-dtype", "int8", "--max-tokens", "64")
    chosen = builds.calls[0]["decoder"]
    assert (chosen.cache_dtype, chosen.max_tokens, chosen.max_sequences) == ("int8", 64, 16)
    error = cli.error("build", "silero-vad", "--max-sequences", "4", code=2)
    assert "--max-sequences is for language models; silero-vad generates no text" in error["message"]
