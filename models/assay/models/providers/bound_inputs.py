"""A model from another provider with some of its inputs fixed to constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from assay.errors import ModelError
from assay.models.spec import Provider

__all__ = ["BoundInputs"]


@dataclass(frozen=True, kw_only=True)
class BoundInputs:
    """``source`` with each scalar input named in ``values`` turned into a constant.

    A sampling rate or a flag given as an input usually selects a branch of an ``If``; once it is a constant,
    export folds the other branches away.
    """

    source: Provider
    values: Mapping[str, float | int | bool] = field(default_factory=dict)

    def onnx_path(self, folder: Path) -> Path:
        """Path of the changed copy below ``folder``; raises ModelError when a named input does not exist."""
        import numpy as np
        import onnx

        from assay.models.export.safe_load import load_safely

        model = load_safely(self.source.onnx_path(folder)).model
        inputs = {value.name: value for value in model.graph.input}
        for name, value in self.values.items():
            if name not in inputs:
                raise ModelError(f"The model has no input {name!r} to fix; it has {', '.join(inputs)}.")
            element = onnx.helper.tensor_dtype_to_np_dtype(inputs[name].type.tensor_type.elem_type)
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, element), name))
            model.graph.input.remove(inputs[name])
        path = folder / "bound.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path
