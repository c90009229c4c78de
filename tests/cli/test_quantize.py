"""The verb on small models, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import assay.compile.quantize.tasks
from assay.compile.quantize.prepare import default_scheme
from assay.compile.quantize.tasks import Effect
from assay.models.export import export_canonical
from assay.models.registry import find_model
from assay.runtime.recording import record_inputs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``y = relu(x @ w) @ v`` with x [batch, 96]."""
    generator = np.random.default_rng(0)
    tensors = {
        "w": generator.standard_normal((96, 64)).astype(np.float32),
        "v": generator.standard_normal((64, 40)).astype(np.float32),
    }
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
            onnx.helper.make_node("Relu", ["h"], ["r"], name="relu"),
            onnx.helper.make_node("MatMul", ["r", "v"], ["y"], name="second"),
        ],
        "main",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 96])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 40])],
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    path = tmp_path_factory.mktemp("quantize") / "small.onnx"
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    onnx.save_model(made, path)
    return path


def test_without_a_model_it_shows_computed_sizes(cli: Any) -> None:
    sizes = {each["scheme"]: each for each in cli.json("quantize")["sizes"]}
    assert sizes["f32"]["bytes_per_weight"] == 4
    assert sizes["int8"]["bytes_per_weight"] == 1.0625
    assert sizes["f16"]["llama_2_7b"] < sizes["f32"]["llama_2_7b"] == 26_953_662_464
    assert "Llama-2-7B" in cli("quantize").stdout


def test_it_reports_every_weight_the_whole_and_the_effect(cli: Any, model: Path, tmp_path: Path) -> None:
    found = cli.json("quantize", model, "--scheme", "int8", "--cache", tmp_path)
    assert {each["name"]: each["bytes"] for each in found["tensors"]} == {
        "w": 96 * 64 * 17 // 16,
        "v": 64 * 40 * 17 // 16,
    }
    assert found["total"]["bits_per_weight"] == 8.5
    assert all(30 < each["sqnr"] < 60 for each in (*found["tensors"], found["total"], *found["outputs"]))
    (mean, least) = found["effects"]
    assert 0.999 < least["after"] <= mean["after"] < 1
    text = cli("quantize", model, "--scheme", "int8", "--cache", tmp_path).stdout
    assert "2 weights" in text
    assert "mean cosine" in text


@pytest.mark.parametrize("scheme", ["f16", "int4", "int8-dynamic", "int8-static"])
def test_what_it_writes_is_built_as_it_is(cli: Any, model: Path, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "out" / "small-quantized.onnx"
    found = cli("quantize", model, "--scheme", scheme, "-o", path, "--cache", tmp_path, "-q")
    assert found.stdout == f"{path}\n"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    canonical = export_canonical(find_model(str(path)), tmp_path / "exported")
    assert default_scheme(canonical) == "source"
    stored = {tensor.data_type for tensor in onnx.load(canonical.path).graph.initializer}
    wanted = {"f16": onnx.TensorProto.FLOAT16, "int4": onnx.TensorProto.UINT8}
    assert wanted.get(scheme, onnx.TensorProto.INT8) in stored


def test_a_mixture_keeps_its_budget(cli: Any, model: Path, tmp_path: Path) -> None:
    options = ("--scheme", "int4", "--candidate", "int8", "--cache", tmp_path)
    plain = cli.json("quantize", model, *options[:2], "--cache", tmp_path)
    budget = plain["total"]["bytes"] + 64 * 40
    found = cli.json("quantize", model, *options, "--max-bytes", budget)
    assert plain["total"]["bytes"] < found["total"]["bytes"] <= budget
    assert sorted(each.partition("=")[2] for each in found["overrides"]) == ["int4", "int8"]
    target = plain["outputs"][0]["sqnr"] + 4
    found = cli.json("quantize", model, *options, "--min-sqnr", target)
    # On the samples that guide the choice it is kept; these are others.
    assert found["outputs"][0]["sqnr"] > target - 1.5


def test_calibration_reads_recorded_inputs(cli: Any, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    generator = np.random.default_rng(1)
    for _ in range(4):
        record_inputs(folder, {"x": generator.standard_normal((30, 96)).astype(np.float32)})
    options = ("--calibration", folder, "--cache", tmp_path)
    found = cli.json("quantize", model, "--scheme", "int4-gptq", *options)
    others = cli.json("quantize", model, "--scheme", "int4-gptq", "--cache", tmp_path)
    assert [each["bytes"] for each in found["tensors"]] == [each["bytes"] for each in others["tensors"]]
    assert found["tensors"] != others["tensors"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--scheme", "int5"), 3, "int5"),
        (("--scheme", "int4-g24"), 2, "24"),
        (("--override", "nothing=int8"), 3, "nothing"),
        (("--override", "w"), 2, "PATTERN=SCHEME"),
        (("--override", "w=int4-g128"), 2, "shorter"),
        (("--candidate", "int8"), 2, "--max-bytes"),
        (("--max-bytes", "100"), 2, "smallest"),
        (("--max-bytes", "100000", "--min-sqnr", "10"), 2, "one budget"),
    ],
)
def test_what_cannot_be_is_one_error(
    cli: Any, model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    error = cli.error("quantize", model, *arguments, "--cache", tmp_path, code=code)
    assert said in error["message"]


def test_an_empty_calibration_folder_is_one_error(cli: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "gone"):
        error = cli.error("quantize", model, "--calibration", tmp_path / folder, "--cache", tmp_path, code=16)
        assert folder in error["message"]


def test_an_artifact_gives_its_perplexity(
    cli: Any, make_artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect = Effect(measure="perplexity", before=None, after=7.5, count=100)
    monkeypatch.setattr(assay.compile.quantize.tasks, "artifact_perplexity", lambda path: effect)
    assert cli.json("quantize", make_artifact())["perplexity"] == 7.5


def test_an_artifact_that_is_no_language_model_is_refused(cli: Any, make_artifact: Any) -> None:
    cli.error("quantize", make_artifact(), code=2)
