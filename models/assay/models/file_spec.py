"""A specification made from an ONNX file that nobody registered."""

from __future__ import annotations

from pathlib import Path

from assay.models.export.interface import read_inputs
from assay.models.export.safe_load import parse_model
from assay.models.providers.onnx_file import OnnxFile
from assay.models.spec import ModelSpec, Weights

__all__ = ["spec_from_file"]


def spec_from_file(path: Path) -> ModelSpec:
    """The model of the file at ``path``, named after it; its external data is not read yet.

    Its weights count as trained: nobody keeps a file of random ones. Raises ModelError.
    """
    provider = OnnxFile(path=path.absolute())
    model = parse_model(provider.onnx_path(path.parent).read_bytes(), str(path))
    return ModelSpec(
        name=path.stem,
        description=f"The ONNX file {path.name}.",
        provider=provider,
        inputs=read_inputs(model.graph),
        weights=Weights.TRAINED,
        licence="unknown",
    )
