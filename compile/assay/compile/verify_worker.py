"""Run an artifact on saved inputs: ``python -m assay.compile.verify_worker ARTIFACT LEVEL FOLDER COUNT``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from assay.errors import AssayError
from assay.runtime import load


def main(arguments: list[str]) -> int:
    """Write FOLDER/outputsN.npz for each FOLDER/inputsN.npz, arrays in the order of the interface.

    The message of an error goes to stderr.
    """
    artifact, level, folder, count = arguments[0], arguments[1], Path(arguments[2]), int(arguments[3])
    try:
        model = load(artifact, level=level)
        for i in range(count):
            with np.load(folder / f"inputs{i}.npz") as archive:
                outputs = model.run({item.name: archive[f"arr_{k}"] for k, item in enumerate(model.inputs)})
            np.savez(folder / f"outputs{i}.npz", *(outputs[item.name] for item in model.outputs))
    except AssayError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
