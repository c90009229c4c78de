"""Inputs of a run from files: arrays, JSON, and what a model's specification decodes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import InterfaceError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.spec import ModelSpec
    from assay.runtime.manifest import Input, Manifest

__all__ = ["read_inputs"]

_ARRAYS = (".npy", ".npz", ".json")


def read_inputs(
    arguments: Sequence[str], manifest: Manifest, spec: ModelSpec | None
) -> dict[str, npt.NDArray[Any]]:
    """Arrays by input name from arguments ``FILE`` and ``NAME=FILE``.

    .npy, .npz and .json hold arrays; any other file is decoded by ``spec``, where it can. Raises UsageError
    for a file that is missing, of an unknown kind or damaged, InterfaceError for one that does not fit the
    inputs.
    """
    interface = {item.name: item for item in manifest.inputs}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for argument in arguments:
        name, path = _split(argument, interface)
        found = _read(path, name, interface, spec)
        twice = sorted(found.keys() & arrays.keys())
        if twice:
            raise UsageError(f"The input {twice[0]!r} is given twice.")
        arrays.update(found)
    return arrays


def _split(argument: str, interface: dict[str, Input]) -> tuple[str | None, Path]:
    """The input's name, None for none, and the file."""
    for name in interface:
        if argument.startswith(f"{name}="):
            return name, Path(argument[len(name) + 1 :])
    path = Path(argument)
    head, separator, _ = argument.partition("=")
    if separator and not path.exists():
        raise InterfaceError(
            f"The model has no input {head!r}.", hint=f"Inputs: {', '.join(interface) or 'none'}."
        )
    return None, path


def _read(
    path: Path, name: str | None, interface: dict[str, Input], spec: ModelSpec | None
) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise UsageError(f"There is no file {str(path)!r}.")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        archive = _load(path)
        if name is None:
            return archive
        return {name: archive[name] if name in archive else _only(archive, path, "arrays")}
    if suffix == ".npy":
        return {name or _only_input(path, interface): _load(path)["array"]}
    if suffix == ".json":
        return _from_json(path, name, interface)
    if spec is None or spec.decode_file is None:
        raise UsageError(
            f"{path.name!r} is of no kind that this model takes.",
            hint=f"It takes {', '.join(_ARRAYS)}. Other kinds need a model that says how to read them.",
        )
    decoded = spec.decode_file(path)
    if name is None:
        return decoded
    if name not in decoded:
        raise InterfaceError(f"{path.name!r} gives {', '.join(decoded)}, not {name!r}.")
    return {name: decoded[name]}


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file, or that of an .npy file under ``array``."""
    import numpy as np

    try:
        # Opened here: NumPy leaves a damaged archive open.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"array": loaded}
            with loaded as archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{str(path)!r} cannot be read as NumPy arrays: {error}") from error


def _only(arrays: dict[str, Any], path: Path, what: str) -> Any:
    if len(arrays) != 1:
        raise InterfaceError(
            f"{path.name!r} has {len(arrays)} {what} ({', '.join(arrays)}); which one is meant is not clear."
        )
    return next(iter(arrays.values()))


def _only_input(path: Path, interface: dict[str, Input]) -> str:
    if len(interface) != 1:
        raise InterfaceError(
            f"The model has {len(interface)} inputs ({', '.join(interface)}); {path.name!r} is for one.",
            hint="Name it: --input NAME=FILE.",
        )
    return next(iter(interface))


def _from_json(path: Path, name: str | None, interface: dict[str, Input]) -> dict[str, npt.NDArray[Any]]:
    """A nested list for one input, or an object of such lists by input name."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not JSON: {error}.") from error
    if isinstance(content, dict):
        if name is not None:
            content = {name: content[name] if name in content else _only(content, path, "entries")}
        unknown = [key for key in content if key not in interface]
        if unknown:
            raise InterfaceError(
                f"The model has no input {unknown[0]!r}.", hint=f"Inputs: {', '.join(interface) or 'none'}."
            )
        return {key: _as_array(value, interface[key]) for key, value in content.items()}
    key = name or _only_input(path, interface)
    return {key: _as_array(content, interface[key])}


def _as_array(value: Any, item: Input) -> npt.NDArray[Any]:
    """A nested list as an array of the input's dtype; raises InterfaceError where that loses anything."""
    import numpy as np

    try:
        plain = np.asarray(value)
    except ValueError as error:
        raise InterfaceError(f"The list for {item.name!r} is ragged: its rows differ in length.") from error
    if plain.dtype.kind not in "bif":
        raise InterfaceError(f"The list for {item.name!r} holds something other than numbers.")
    dtype = np.dtype(item.dtype)
    if dtype.kind == "f":
        return plain.astype(dtype)
    with np.errstate(invalid="ignore"):
        converted = plain.astype(dtype)
    if not np.array_equal(converted.astype(plain.dtype), plain):
        raise InterfaceError(f"The list for {item.name!r} has numbers that are no {item.dtype}.")
    return converted
