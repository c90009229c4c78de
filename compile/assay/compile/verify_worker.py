"""Run an artifact on saved inputs: ``python -m assay.compile.verify_worker ARTIFACT LEVEL FOLDER COUNT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import AssayError
from assay.runtime import load
from assay.runtime.memory import empty_aligned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from assay.runtime.manifest import Manifest
    from assay.runtime.session import Model


def main(arguments: list[str]) -> int:
    """Write FOLDER/outputsN.npz for each FOLDER/inputsN.npz, arrays in the order of the interface.

    The message of an error goes to stderr.
    """
    artifact, level, folder, count = arguments[0], arguments[1], Path(arguments[2]), int(arguments[3])
    try:
        run_cases(load(artifact, level=level), folder, count)
    except AssayError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


def run_cases(model: Model, folder: Path, count: int) -> None:
    """Run ``model`` on the inputs in ``folder``, and write its outputs there."""
    cases = [_read(folder / f"inputs{i}.npz", model) for i in range(count)]
    cache = decoder_cache(model.manifest, cases)
    for i, inputs in enumerate(cases):
        outputs = model.run({**inputs, **cache})
        np.savez(folder / f"outputs{i}.npz", *(outputs[item.name] for item in model.outputs))


def _read(path: Path, model: Model) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file as the first inputs of the interface."""
    with np.load(path) as archive:
        names = [item.name for item in model.inputs]
        return {name: archive[f"arr_{k}"] for k, name in enumerate(names[: len(archive.files)])}


def decoder_cache(
    manifest: Manifest, cases: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> dict[str, npt.NDArray[Any]]:
    """The cache that all cases of a decoder share: memory with something in it, as of other sequences."""
    if manifest.decoder is None:
        return {}
    pages = 1 + max(int(case["page_table"].max()) for case in cases)
    generator = np.random.default_rng(0)
    cache = {}
    for item in manifest.inputs:
        if item.name not in cases[0]:
            shape = [pages, *(dim for dim in item.shape[1:] if isinstance(dim, int))]
            array = cache[item.name] = empty_aligned(tuple(shape), np.dtype(item.dtype))
            array[...] = generator.integers(-100, 100, shape)
    return cache


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
