"""What schemes do to the embeddings of a trained encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.compile.quantize.prepare import find_plan
from assay.compile.quantize.session import quantize_spec
from assay.models.registry import find_model
from assay.progress import SilentProgress

pytestmark = [pytest.mark.slow, pytest.mark.torch]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("scheme", "least"), [("int8-dynamic", 0.99), ("int8-dynamic-smooth", 0.995)])
def test_embeddings_keep_their_direction(scheme: str, least: float, cache: Path) -> None:
    report = quantize_spec(find_model("minilm"), find_plan(scheme), cache=cache, progress=SilentProgress())
    effects = {effect.measure: effect.after for effect in report.effects}
    assert least <= effects["least cosine"] <= effects["mean cosine"] < 1
    assert report.bytes < 0.27 * 4 * report.elements
