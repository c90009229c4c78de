from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from assay.errors import ModelError, UnknownNameError
from assay.models import registry
from assay.models.providers import OnnxFile
from assay.models.registry import find_model, models, providers
from assay.models.spec import ModelSpec, Weights

NAMES = {
    *("resnet18", "resnet50", "mobilenetv2", "vit-s16", "bert-base", "gpt2", "minilm"),
    *("silero-vad", "basic-pitch"),
    *("light-alexnet", "light-densenet121", "light-inception-v1", "light-inception-v2", "light-resnet50"),
    "light-resnet50-int8",
    "minilm-int8",
    *("light-shufflenet", "light-squeezenet", "light-vgg19", "light-zfnet512"),
}

PLUGGED = replace(find_model("resnet18"), name="plugged")


def several() -> list[ModelSpec]:
    return [replace(PLUGGED, name="first"), replace(PLUGGED, name="second")]


def from_hub(reference: str) -> ModelSpec:
    return replace(PLUGGED, name=f"hub-{reference}")


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, object], None]]:
    """Install an entry point: group, name, object."""
    installed: list[tuple[str, str, object]] = []

    class Loaded(EntryPoint):
        def load(self) -> object:
            return next(item for _, name, item in installed if name == self.name)

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [Loaded(name, "test:object", group) for found, name, _ in installed if found == group]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    models.cache_clear()
    providers.cache_clear()
    yield lambda group, name, item: installed.append((group, name, item))
    models.cache_clear()
    providers.cache_clear()


def test_the_zoo_is_registered() -> None:
    assert set(models()) >= NAMES


def test_every_specification_is_complete() -> None:
    for name, spec in models().items():
        assert spec.name == name
        assert spec.description.endswith(".")
        assert "\n" not in spec.description
        assert spec.licence in ("Apache-2.0", "MIT")
        assert spec.representative_inputs is not None
        assert spec.inputs


def test_only_models_with_real_weights_count_as_trained() -> None:
    trained = {name for name, spec in models().items() if spec.weights is Weights.TRAINED}
    assert trained == {"minilm", "minilm-int8", "silero-vad", "basic-pitch", "smollm2-135m"}


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean resnet18"):
        find_model("resnet-18")


def test_a_file_needs_no_registration(linear_file: Path) -> None:
    spec = find_model(str(linear_file))
    assert spec.name == "linear"
    assert spec.provider == OnnxFile(path=linear_file)
    assert find_model(f"onnx:{linear_file}") == spec


def test_a_relative_path_works_from_elsewhere(
    linear_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(linear_file.parent)
    spec = find_model("linear.onnx")
    monkeypatch.chdir("/")
    assert spec.provider.onnx_path(tmp_path) == linear_file


def test_a_missing_file_is_a_model_error() -> None:
    with pytest.raises(ModelError, match=r"none.onnx' is not there"):
        find_model("none.onnx")


def test_any_existing_file_is_taken_for_a_model(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a model at all")
    with pytest.raises(ModelError, match="not an ONNX model"):
        find_model(str(path))


def test_a_folder_named_like_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(ModelError, match="a folder, not a file"):
        find_model(str(tmp_path / "m.onnx"))


def test_a_model_plugs_in(plug_in: Callable[[str, str, object], None]) -> None:
    plug_in("assay.models", "one", PLUGGED)
    plug_in("assay.models", "many", several)
    assert find_model("plugged") is PLUGGED
    assert [find_model(name).name for name in ("first", "second")] == ["first", "second"]


def test_two_models_of_one_name_are_refused(plug_in: Callable[[str, str, object], None]) -> None:
    plug_in("assay.models", "again", find_model("gpt2"))
    models.cache_clear()
    with pytest.raises(ValueError, match=r"'gpt2' is registered twice"):
        models()


def test_a_provider_plugs_in(plug_in: Callable[[str, str, object], None]) -> None:
    plug_in("assay.providers", "hub", from_hub)
    assert find_model("hub:name/of-model").name == "hub-name/of-model"


def test_an_unknown_provider_is_an_unknown_model() -> None:
    with pytest.raises(UnknownNameError):
        find_model("nowhere:model")


def test_listing_models_imports_nothing_heavy() -> None:
    code = (
        "import sys; from assay.models.registry import models; models();"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "onnx", "onnxruntime", "torch", "transformers", "scipy", "PIL", "tvm", "tvm_ffi"}
    assert not heavy & set(result.stdout.split())
