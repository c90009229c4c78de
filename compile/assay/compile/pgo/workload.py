"""The workload of a profile-guided build: recorded inputs from a folder, or a specification's own.

In a folder, every case is one run: a file ``NAME.npz`` (arrays by input name), ``NAME.json`` (an object of
nested lists by input name), or a folder of ``INPUT.npy`` files. ``assay run --record`` writes such cases.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import InterfaceError, WorkloadError
from assay.models.inputs import make_inputs
from assay.models.providers.onnx_file import OnnxFile

if TYPE_CHECKING:
    from assay.models.spec import Array, ModelSpec
    from assay.runtime.manifest import Input

__all__ = ["WorkloadCase", "read_cases", "read_workload", "representative_workload", "sizes_of"]

# Smaller inputs than the default are as common as larger ones: fractions and multiples of the default size.
_FRACTIONS = ((1, 4), (1, 2), (1, 1), (2, 1))
_KINDS = (".npz", ".json")


@dataclass(frozen=True, kw_only=True)
class WorkloadCase:
    """One run: arrays by input name, the size of each symbolic dimension, and how often it was seen."""

    name: str
    inputs: Mapping[str, Array]
    sizes: Mapping[str, int] = field(default_factory=dict)
    count: int = 1


def representative_workload(spec: ModelSpec) -> list[WorkloadCase]:
    """Representative inputs of a registered model at several sizes; empty for a file, which says nothing.

    The first symbolic dimension with a default above one takes a quarter, half, all and twice of it, as far
    as its range goes; the others keep their defaults.
    """
    if isinstance(spec.provider, OnnxFile) and spec.representative_inputs is None:
        return []
    varied = next((dim for dim in spec.symbolic_dims.values() if dim.default > 1), None)
    if varied is None:
        wanted = [spec.default_sizes()]
    else:
        scaled = [varied.default * above // below for above, below in _FRACTIONS]
        fitting = [size for size in scaled if varied.minimum <= size <= varied.maximum]
        wanted = [{**spec.default_sizes(), varied.name: size} for size in dict.fromkeys(fitting)]
    return [
        WorkloadCase(name=f"representative-{i}", inputs=make_inputs(spec, sizes, seed=i), sizes=sizes)
        for i, sizes in enumerate(wanted)
    ]


def read_workload(folder: Path, interface: Sequence[Input]) -> list[WorkloadCase]:
    """The cases of a folder, those of equal sizes once and with their count, in the order of their names.

    Raises WorkloadError for a folder without cases, a file that cannot be read, and arrays that do not fit.
    """
    cases: dict[tuple[tuple[str, int], ...], WorkloadCase] = {}
    for case in read_cases(folder, interface):
        key = tuple(sorted(case.sizes.items()))
        earlier = cases.get(key)
        cases[key] = case if earlier is None else replace(earlier, count=earlier.count + 1)
    return list(cases.values())


def read_cases(folder: Path, interface: Sequence[Input]) -> list[WorkloadCase]:
    """Every case of a folder in the order of their names. Raises WorkloadError as ``read_workload`` does."""
    if not folder.is_dir():
        raise WorkloadError(f"There is no workload folder {str(folder)!r}.")
    cases = [
        _checked(path, _read(path, interface), interface)
        for path in sorted(folder.iterdir())
        if (path.is_dir() or path.suffix in _KINDS) and not path.name.startswith(".")
    ]
    if not cases:
        raise WorkloadError(
            f"The workload folder {str(folder)!r} has no cases.",
            hint="A case is a .npz or .json file, or a folder of INPUT.npy files; "
            "`assay run ARTIFACT --record FOLDER` writes them.",
        )
    return cases


def sizes_of(inputs: Mapping[str, Array], interface: Sequence[Input]) -> dict[str, int]:
    """The size of each symbolic dimension in arrays that fit the interface."""
    return {
        dim.name: size
        for item in interface
        for dim, size in zip(item.shape, inputs[item.name].shape, strict=True)
        if not isinstance(dim, int)
    }


def _checked(path: Path, inputs: dict[str, Array], interface: Sequence[Input]) -> WorkloadCase:
    from assay.runtime.session import check_inputs

    try:
        check_inputs(tuple(interface), inputs)
    except InterfaceError as error:
        raise WorkloadError(
            f"The workload's {path.name} does not fit: {error.message}", hint=error.hint
        ) from error
    return WorkloadCase(name=path.stem, inputs=inputs, sizes=sizes_of(inputs, interface))


def _read(path: Path, interface: Sequence[Input]) -> dict[str, Array]:
    import numpy as np

    try:
        if path.is_dir():
            return {file.stem: _array(file) for file in sorted(path.glob("*.npy"))}
        if path.suffix == ".npz":
            # Opened here: NumPy leaves a damaged archive open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        dtypes = {item.name: item.dtype for item in interface}
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is no object of lists by input name")
        return {name: _from_list(values, dtypes.get(name)) for name, values in content.items()}
    except (OSError, ValueError, EOFError, RecursionError, TypeError, zipfile.BadZipFile) as error:
        raise WorkloadError(f"The workload's {path.name} cannot be read: {error}.") from error


def _array(path: Path) -> Array:
    import numpy as np

    with path.open("rb") as stream:
        loaded: Any = np.load(stream, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path.name} holds several arrays")
    return loaded


def _from_list(values: Any, dtype: str | None) -> Array:
    import numpy as np

    plain = np.asarray(values)
    if plain.dtype.kind not in "bif":
        raise ValueError("it holds something other than numbers")
    converted = plain.astype(dtype or plain.dtype)
    if converted.dtype.kind != "f" and not np.array_equal(converted, plain):
        raise ValueError(f"it has numbers that are no {dtype}")
    return converted
