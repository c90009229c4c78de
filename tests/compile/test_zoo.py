"""Every model of the zoo: built, verified, sealed, loaded and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.compile.build import build_artifact
from assay.compile.verify import reference_outputs
from assay.models.inputs import make_inputs
from assay.models.registry import models
from assay.models.spec import ModelSpec
from assay.runtime import load
from assay.runtime.artifact import open_artifact

MODELS = [
    pytest.param(spec, id=name, marks=[pytest.mark.torch] if spec.needs_torch else [])
    for name, spec in models().items()
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", MODELS)
def test_model_is_built_verified_and_run(spec: ModelSpec, cache: Path, needs_avx2: None) -> None:
    result = build_artifact(spec, target="x86-64-v3", cache=cache)
    manifest = open_artifact(result.path).manifest
    assert manifest == result.manifest
    (level,) = manifest.levels
    assert level.executed == "native"
    names = {output.name for output in manifest.outputs}
    assert {case.output for case in level.verification.cases} == names
    # Rounding to integers, a difference in the last bit becomes a whole step.
    least = 0.98 if "int8" in spec.tags else 0.999
    assert all(case.cosine_similarity > least for case in level.verification.cases)
    inputs = make_inputs(spec, seed=7)
    (expected,) = reference_outputs(result.canonical.path, [inputs])
    outputs = load(result.path, verify=False).run(inputs)
    assert outputs.keys() == expected.keys() == names
    for name, wanted in expected.items():
        np.testing.assert_allclose(
            outputs[name],
            wanted,
            rtol=spec.tolerance.relative,
            atol=spec.tolerance.absolute,
            err_msg=f"{spec.name}: {name}",
        )
