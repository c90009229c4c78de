"""Comparison of a rewritten model with its source, both run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError
from assay.models.inputs import make_inputs
from assay.models.spec import Array, ModelSpec

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["check_agreement"]


def check_agreement(reference: Path, changed: Path, spec: ModelSpec) -> None:
    """Run both models on one set of inputs of the default sizes, and compare within ``spec.tolerance``.

    Raises ModelError naming the output that differs. A reference that refuses the inputs (they may be
    generated from a file's bare declarations) leaves nothing to compare.
    """
    import numpy as np

    inputs = make_inputs(spec)
    try:
        expected = _run(reference, inputs)
    except Exception:  # ONNX Runtime's errors have no common base but Exception.
        return
    found = _run(changed, inputs)
    for name, wanted in expected.items():
        agrees = found[name].shape == wanted.shape and np.allclose(
            found[name], wanted, spec.tolerance.relative, spec.tolerance.absolute, equal_nan=True
        )
        if not agrees:
            raise ModelError(
                f"The simplified form of {spec.name} computes another {name!r} than the model itself.",
                hint="This is a mistake in Assay's rewriting of operators; please report it with the model.",
            )


def _run(path: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # As it is: the optimiser is part of what is compared.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
