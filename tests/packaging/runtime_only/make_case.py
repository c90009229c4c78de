"""Build a model, and save inputs with ONNX Runtime's outputs for them: ``make_case.py MODEL FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from assay.compile.build import build_artifact
from assay.models.inputs import make_inputs
from assay.models.registry import find_model


def main(model: str, folder: Path) -> None:
    """Write ``artifact/``, ``packed.assay``, ``inputs.npz``, ``expected.npz`` and ``tolerance.json``."""
    spec = find_model(model)
    result = build_artifact(spec, output=folder / "artifact")
    build_artifact(spec, output=folder / "packed.assay", packed=True)
    inputs = make_inputs(result.canonical.spec)
    session = onnxruntime.InferenceSession(result.canonical.path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "expected.npz", **dict(zip(names, session.run(names, inputs), strict=True)))
    tolerance = {"atol": spec.tolerance.absolute, "rtol": spec.tolerance.relative}
    (folder / "tolerance.json").write_text(json.dumps(tolerance))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
