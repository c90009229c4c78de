from __future__ import annotations

import numpy as np
import pytest

import assay.runtime
from assay.errors import ArtifactError, UsageError
from assay.runtime.artifact import open_artifact
from assay.runtime.drivers.tvm_vm import TvmVm
from assay.runtime.generate.cache import zeros_aligned


def test_an_artifact_that_is_no_decoder(tiny_artifact):
    with pytest.raises(UsageError, match=r"is not a decoder: tiny generates no text") as caught:
        assay.runtime.load_decoder(tiny_artifact)
    assert f"assay run {tiny_artifact}" in str(caught.value)


def test_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="no artifact"):
        assay.runtime.load_decoder(tmp_path / "nothing")


def test_tensors_are_used_where_they_are(tiny_artifact, tiny):
    artifact = open_artifact(tiny_artifact)
    driver = TvmVm(artifact, artifact.manifest.levels[0].entry)
    array = zeros_aligned((3, 96), np.dtype(np.float32))
    tensors = driver.tensors([array])
    for value in (1.0, -2.0):
        array[:] = value  # the tensor sees it: nothing was copied
        outputs = driver.call_tensors(tensors, 1)
        for output, expected in zip(outputs, tiny.reference(array).values(), strict=True):
            np.testing.assert_allclose(output, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", ["offset", "strided"])
def test_arrays_that_would_have_to_be_copied_are_refused(tiny_artifact, make):
    artifact = open_artifact(tiny_artifact)
    driver = TvmVm(artifact, artifact.manifest.levels[0].entry)
    array = zeros_aligned((4, 97), np.dtype(np.float32))
    wrong = array.reshape(-1)[1:97] if make == "offset" else array[:, :96]
    with pytest.raises(ValueError, match="not contiguous, or not aligned"):
        driver.tensors([wrong])
