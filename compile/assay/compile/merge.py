"""Several artifacts of one model, each for one target, joined into one of several levels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from assay.runtime.artifact import WEIGHTS, Artifact, open_artifact, write_artifact
from assay.runtime.device_code import decode_device_code
from assay.runtime.javascript_files import is_javascript
from assay.runtime.kernels import kernels_file
from assay.runtime.manifest import Entry, Level, Manifest, Weight
from assay.runtime.plan import plan_file
from assay.runtime.weights import save_weights

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["write_levels"]


class _Pool:
    """The weights of all levels: those of equal dtype, shape and bytes are kept once, under one name."""

    def __init__(self) -> None:
        self.weights: dict[str, Weight] = {}
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, weight: Weight, array: npt.NDArray[Any], level: str) -> str:
        """The name under which the pool holds ``weight``: its own, or with that of ``level`` before it."""
        key = (weight.dtype, weight.shape, hashlib.sha256(array.data).digest())
        if key not in self._names:
            name = weight.name if weight.name not in self.weights else f"{level}/{weight.name}"
            self._names[key] = name
            self.weights[name] = msgspec.structs.replace(weight, name=name)
            self.arrays[name] = _with_dtype(array, weight.dtype)
        return self._names[key]


def write_levels(destination: Path, artifacts: Sequence[Path], scratch: Path) -> Manifest:
    """Write one artifact at ``destination`` of ``artifacts``, which have one level each, plain ones first.

    ``scratch`` is a folder for temporary files. Weights that several levels pack alike are stored once.
    Returns the manifest. Raises StorageError where there is no room.
    """
    pool = _Pool()
    levels: list[Level] = []
    files: dict[str, bytes | Path] = {}
    opened = [open_artifact(path) for path in artifacts]
    for artifact in opened:
        levels.append(_add_level(artifact, pool, files))
    manifest = opened[0].manifest
    if manifest.decoder is not None:
        text = (manifest.decoder.tokenizer, manifest.decoder.chat_template)
        files.update({name: opened[0].path(name) for name in text if name is not None})
    runtimes = {name: each for each in opened if (name := each.manifest.tvm_runtime) is not None}
    for name, each in runtimes.items():
        manifest = msgspec.structs.replace(manifest, tvm_runtime=name)
        files[name] = each.path(name)
    for each in opened:
        files.update({name: each.path(name) for name in each.manifest.files if is_javascript(name)})
    if pool.weights:
        save_weights(scratch / WEIGHTS, pool.arrays)
        files[WEIGHTS] = scratch / WEIGHTS
    joined = msgspec.structs.replace(manifest, weights=tuple(pool.weights.values()), levels=tuple(levels))
    write_artifact(destination, joined, files)
    return open_artifact(destination, verify=False).manifest


def _add_level(artifact: Artifact, pool: _Pool, files: dict[str, bytes | Path]) -> Level:
    (level,) = artifact.manifest.levels
    name = level.target.name
    described = {weight.name: weight for weight in artifact.manifest.weights}
    arrays = artifact.weights()

    def moved(entry: Entry) -> Entry:
        """``entry`` with its weights in the pool and its library in the folder of the level."""
        library = f"lib/{name}/{PurePosixPath(entry.library).name}"
        files[library] = artifact.path(entry.library)
        files[kernels_file(library)] = artifact.path(kernels_file(entry.library))
        plan = None
        if entry.plan is not None:
            plan = plan_file(library)
            files[plan] = artifact.path(entry.plan)
        if entry.driver == "device":
            folder = PurePosixPath(entry.library).parent
            code = decode_device_code(artifact.read(entry.library)).files.values()
            files.update({f"lib/{name}/{each}": artifact.path(str(folder / each)) for each in code})
        weights = tuple(pool.add(described[weight], arrays[weight], name) for weight in entry.weights)
        return msgspec.structs.replace(entry, library=library, plan=plan, weights=weights)

    special = tuple(msgspec.structs.replace(each, entry=moved(each.entry)) for each in level.specializations)
    return msgspec.structs.replace(level, entry=moved(level.entry), specializations=special)


def _with_dtype(array: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """``array`` as it was before it was stored: NumPy maps bfloat16 as uint16."""
    if dtype != "bfloat16":
        return array
    import ml_dtypes

    return array.view(ml_dtypes.bfloat16)
