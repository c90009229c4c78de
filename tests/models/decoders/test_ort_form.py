"""Zero points that ONNX Runtime is fast with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from assay.models.decoders.export import export_decoder
from assay.models.decoders.mapping import Naming
from assay.models.decoders.ort_form import split_zero_points, write_ort_form
from assay.models.decoders.read_config import config_from_hf

from .conftest import LLAMA, CachedSession, DictWeights, llama_weights, quantize

IDS = np.random.default_rng(2).integers(0, 61, 12)


def export(folder: Path, *, zero_points: bool) -> Path:
    config = config_from_hf(LLAMA)
    weights: dict[str, Any] = {
        name: quantize(value, 4, zero_points=zero_points) if value.ndim == 2 else value
        for name, value in llama_weights(config).items()
    }
    path = folder / "model.onnx"
    export_decoder(config, DictWeights(weights), path, naming=Naming.HF)
    return path


def test_split_zero_points_compute_the_same(tmp_path: Path) -> None:
    source = export(tmp_path, zero_points=True)
    model = onnx.load(source)
    assert split_zero_points(model) == 2 * 4 + 1
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert {len(node.input) for node in products} == {3}
    for node in products:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1  # without rounding of activations, so that the two are comparable
    onnx.save(model, tmp_path / "split.onnx")
    config = config_from_hf(LLAMA)
    logits = [
        CachedSession(path, config).in_steps(IDS, (9, 1, 2)) for path in (source, tmp_path / "split.onnx")
    ]
    np.testing.assert_allclose(logits[1], logits[0], atol=2e-5)
    assert not any(
        ".zero_points" in tensor.name and "correction" not in tensor.name
        for tensor in model.graph.initializer
    )


def test_a_file_is_written_where_there_is_something_to_split(tmp_path: Path) -> None:
    source = export(tmp_path, zero_points=True)
    assert write_ort_form(source, tmp_path / "fast.onnx")
    logits = CachedSession(tmp_path / "fast.onnx", config_from_hf(LLAMA)).advance(IDS)
    exact = CachedSession(source, config_from_hf(LLAMA)).advance(IDS)
    # Activations are rounded to 8 bits here, there not.
    assert 0 < np.abs(logits - exact).max() < 0.1 * np.abs(exact).max()


def test_nothing_is_written_where_there_is_nothing_to_split(tmp_path: Path) -> None:
    source = export(tmp_path, zero_points=False)
    assert not write_ort_form(source, tmp_path / "fast.onnx")
    assert not (tmp_path / "fast.onnx").exists()
