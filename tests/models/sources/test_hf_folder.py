from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from assay.errors import ModelError
from assay.models.sources.hf_folder import open_folder

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.float16),
    "c": np.arange(4).astype(ml_dtypes.bfloat16),
    "mask": np.ones(3, np.bool_),
}


def write_sharded(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    names = list(TENSORS)
    weight_map = {}
    for number, name in enumerate(names, start=1):
        file = f"model-{number:05d}-of-{len(names):05d}.safetensors"
        save_file({name: TENSORS[name]}, folder / file)
        weight_map[name] = file
    _write_index(folder, weight_map)
    return folder


def write_single(folder: Path, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file(TENSORS, folder / name)
    return folder


def _write_index(folder: Path, weight_map: Any) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("kind", ["single", "sharded", "other name"])
def test_weights_are_read_from_one_file_or_several(tmp_path: Path, kind: str) -> None:
    if kind == "sharded":
        folder = write_sharded(tmp_path)
    else:
        folder = write_single(tmp_path, "model.safetensors" if kind == "single" else "weights.safetensors")
    opened = open_folder(folder)
    assert opened.config == {"model_type": "llama"}
    weights = opened.weights()
    assert sorted(weights.names()) == sorted(TENSORS)
    for name in "abc":
        assert weights.shape(name) == TENSORS[name].shape
        found = weights.read(name)
        assert found.dtype == TENSORS[name].dtype
        np.testing.assert_array_equal(found, TENSORS[name])
    with pytest.raises(ModelError, match=r"'mask' of .* has the dtype BOOL, which is not read"):
        weights.read("mask")
    with pytest.raises(KeyError):
        weights.read("d")


def test_only_the_file_of_a_tensor_is_opened_for_it(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path)
    weights = open_folder(folder).weights()
    for file in sorted(folder.glob("*.safetensors"))[1:]:
        file.unlink()
    np.testing.assert_array_equal(weights.read("a"), TENSORS["a"])
    with pytest.raises(ModelError, match=r"'b' of .* cannot be read"):
        weights.read("b")


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": np.array([1, np.inf], np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="'a' has 1 weights or scales that are not finite"):
        open_folder(tmp_path).weights().read("a")


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path)
    _write_index(folder, {"a": "model-00002-of-00004.safetensors"})
    with pytest.raises(ModelError, match="places the tensor 'a' in 'model-00002"):
        open_folder(folder).weights()


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "missing.safetensors"}, "'missing.safetensors', which the index"),
        ({"a": "../other/model.safetensors"}, "not in its folder"),
        ({"a": "/etc/passwd"}, "not in its folder"),
        ({"a": ".."}, "not in its folder"),
        ({"a": ""}, "not in its folder"),
        ({"a": 7}, "'7', which the index"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
        (None, "no weight_map"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, weight_map: Any, message: str) -> None:
    folder = write_sharded(tmp_path)
    _write_index(folder, weight_map)
    with pytest.raises(ModelError, match=message):
        open_folder(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model: it has no config\.json"):
        open_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no safetensors files"):
        open_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle, which may run code") as raised:
        open_folder(tmp_path)
    assert "save_pretrained" in (raised.value.hint or "")
    for name in "ab":
        save_file({name: TENSORS[name]}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"has 2 safetensors files and no model\.safetensors\.index\.json"):
        open_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "\x00"])
def test_a_damaged_configuration_is_refused(tmp_path: Path, content: str) -> None:
    folder = write_single(tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        open_folder(folder)


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    outside = write_single(tmp_path / "outside")
    folder = write_single(tmp_path / "model")
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
        (folder / name).symlink_to(outside / name)
        with pytest.raises(ModelError, match="a link that leads out of the model's folder"):
            open_folder(folder)
        (folder / name).unlink()
        (folder / name).write_bytes((outside / name).read_bytes())
    assert open_folder(folder).weights().names()
