"""A Hugging Face folder: ``config.json`` and safetensors files, one or sharded with an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from assay.errors import ModelError
from assay.models.sources.containment import inside
from assay.models.sources.json_file import read_object
from assay.models.sources.safetensors_weights import SafetensorsWeights

__all__ = ["HfFolder", "open_folder"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "consolidated.00.pth")


@dataclass(frozen=True, kw_only=True)
class HfFolder:
    """A folder whose configuration is read, and whose weights are found and not yet opened.

    ``shards`` maps each tensor's name to its file where there is an index.
    """

    path: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    shards: Mapping[str, Path] | None = None

    def weights(self) -> SafetensorsWeights:
        """The weights, their files' headers checked; raises ModelError."""
        return SafetensorsWeights(self.files, self.shards)


def open_folder(path: Path) -> HfFolder:
    """The model in the folder ``path``.

    Raises ModelError where it has no ``config.json`` or no safetensors files, or where a file that it names
    is missing or lies outside.
    """
    config_path = inside(path, path / "config.json")
    if not config_path.is_file():
        raise ModelError(
            f"The folder {str(path)!r} holds no model: it has no config.json.",
            hint="A Hugging Face folder has config.json, *.safetensors and tokenizer.json.",
        )
    config = read_object(config_path)
    index = path / _INDEX
    single = path / _SINGLE
    if index.is_file() and not single.is_file():
        shards = _read_index(path, read_object(index))
        return HfFolder(path=path, config=config, files=tuple(dict.fromkeys(shards.values())), shards=shards)
    if single.is_file():
        return HfFolder(path=path, config=config, files=(inside(path, single),))
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return HfFolder(path=path, config=config, files=(inside(path, found[0]),))
    if found:
        raise ModelError(f"The folder {str(path)!r} has {len(found)} safetensors files and no {_INDEX}.")
    pickles = [name for name in _PICKLES if (path / name).is_file()]
    if pickles:
        raise ModelError(
            f"The folder {str(path)!r} has its weights as {pickles[0]}, a pickle, "
            "which may run code and is not read.",
            hint="Save the model again with transformers: model.save_pretrained(folder) writes safetensors.",
        )
    raise ModelError(f"The folder {str(path)!r} has no safetensors files.")


def _read_index(folder: Path, index: Mapping[str, Any]) -> dict[str, Path]:
    """The file of each tensor; raises ModelError."""
    entries = index.get("weight_map")
    if not isinstance(entries, Mapping) or not entries:
        raise ModelError(f"The index {_INDEX} of {str(folder)!r} has no weight_map.")
    files: dict[str, Path] = {}
    for name in set(map(str, entries.values())):
        if PurePosixPath(name).name != name or name in ("", ".", "..") or "\0" in name:
            raise ModelError(f"The index {_INDEX} names the file {name[:80]!r}, which is not in its folder.")
        path = folder / name
        if not path.is_file():
            raise ModelError(f"The file {name!r}, which the index {_INDEX} names, is missing.")
        files[name] = inside(folder, path)
    return {tensor: files[str(name)] for tensor, name in entries.items()}
