"""Every model of the zoo: built, verified, sealed, loaded and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.compile.build import build_artifact
from assay.compile.verify import reference_outputs
from assay.models.inputs import make_inputs
from assay.models.registry import models
from assay.models.spec import ModelSpec
from assay.runtime import load
from assay.runtime.artifact import open_artifact
from assay.runtime.generate.example_call import example_call


def zoo(*, decoders: bool) -> list[Any]:
    """The models that generate text, or the others, as parameters of a test."""
    return [
        pytest.param(spec, id=name, marks=[pytest.mark.torch] if spec.needs_torch else [])
        for name, spec in models().items()
        if (spec.decoder is not None) == decoders
    ]


@pytest.mark.slow
@pytest.mark.parametrize("spec", zoo(decoders=False))
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


@pytest.mark.slow
@pytest.mark.parametrize("spec", zoo(decoders=True))
def test_decoder_is_built_verified_and_run(spec: ModelSpec, cache: Path, needs_avx2: None) -> None:
    result = build_artifact(spec, target="x86-64-v3", cache=cache)
    decoder = result.manifest.decoder
    assert decoder is not None
    (level,) = result.manifest.levels
    assert level.executed == "native"
    logits = [case for case in level.verification.cases if case.output == "logits"]
    assert logits
    # What ONNX Runtime gives for the same tokens, fed in other pieces and without pages.
    assert all(case.row_error is not None and case.row_error <= 0.2 for case in logits)
    assert all(case.cosine_similarity > 0.999 for case in logits)
    call = example_call(decoder, {}, seed=7)
    outputs = load(result.path, verify=False).run(call)
    assert outputs["logits"].shape == (len(call["logits_rows"]), decoder.vocabulary)
    assert np.isfinite(outputs["logits"]).all()
    assert outputs["logits"].std(axis=1).min() > 0
