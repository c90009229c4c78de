"""Code for chosen sizes: which inputs run it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.errors import ArtifactError
from assay.runtime import load
from assay.runtime.artifact import write_artifact
from assay.runtime.manifest import Entry, Level, Manifest, Specialization, Weight
from assay.runtime.weights import save_weights

ROWS, COLUMNS = 96, 33
LIBRARY = "lib/model-batch3.so"

Make = Callable[..., Path]


@pytest.fixture
def make(
    tiny: Any, tmp_path: Path, make_manifest: Callable[..., Manifest], make_level: Callable[..., Level]
) -> Make:
    """The test model, whose code for three rows shows by another bias."""

    def write(sizes: dict[str, int], weights: tuple[str, ...] = ("w", "other"), **options: Any) -> Path:
        entry = Entry(function="main", library=LIBRARY, weights=weights)
        level = make_level("native", specializations=(Specialization(sizes=sizes, entry=entry),))
        manifest = make_manifest(levels=(level,))
        added = Weight(name="other", dtype="float32", shape=(COLUMNS,), bytes=COLUMNS * 4)
        arrays = {**tiny.weights, "other": tiny.weights["b"] + 1}
        save_weights(tmp_path / "weights.safetensors", arrays)
        manifest = make_manifest(levels=(level,), weights=(*manifest.weights, added))
        files = {**tiny.files, "weights.safetensors": tmp_path / "weights.safetensors"}
        if options.get("library", True):
            files[LIBRARY] = tiny.files["lib/model.so"]
        return write_artifact(tmp_path / "artifact", manifest, files)

    return write


def rows(count: int) -> Any:
    return np.random.default_rng(count).standard_normal((count, ROWS), dtype=np.float32)


def test_inputs_of_the_size_run_its_code_and_others_the_code_for_all(tiny: Any, make: Make) -> None:
    model = load(make({"batch": 3}), threads=1)
    for count in (3, 2, 3, 4, 1):
        x = rows(count)
        bias = tiny.weights["b"] + (1 if count == 3 else 0)
        expected = np.maximum(x @ tiny.weights["w"] + bias, 0)
        np.testing.assert_allclose(model.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-4)


def test_its_kernels_are_timed_too(make: Make) -> None:
    model = load(make({"batch": 3}), threads=1)
    times = model.kernel_times({"x": rows(3)}, repeats=2)
    assert len(times.runs) == 2
    assert times.calls


def test_a_library_that_is_missing_is_told(make: Make) -> None:
    with pytest.raises(ArtifactError, match=LIBRARY):
        load(make({"batch": 3}, library=False))


def test_a_weight_that_is_not_listed_is_told(make: Make) -> None:
    with pytest.raises(ArtifactError, match="weight nothing"):
        load(make({"batch": 3}, ("w", "nothing")))


@pytest.mark.parametrize("sizes", [{"rows": 3}, {"batch": 3, "rows": 3}])
def test_sizes_that_are_not_those_of_the_inputs_are_told(make: Make, sizes: dict[str, int]) -> None:
    with pytest.raises(ArtifactError, match="not those of the inputs"):
        load(make(sizes))
