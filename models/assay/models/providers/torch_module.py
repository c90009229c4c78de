"""A model that a PyTorch factory makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import MissingDependencyError
from assay.models.spec import InputSpec

if TYPE_CHECKING:
    import torch

__all__ = ["TorchModule"]


@dataclass(frozen=True, kw_only=True)
class TorchModule:
    """A module whose ``forward`` takes ``inputs`` by name and gives one tensor for each name in ``outputs``.

    ``factory`` imports torch itself, so that a specification can be looked at without torch.
    """

    factory: Callable[[], torch.nn.Module]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]

    def onnx_path(self, folder: Path) -> Path:
        """Path of the exported model below ``folder``.

        Raises MissingDependencyError without torch, ModelError when torch cannot export the module.
        """
        try:
            import onnxscript  # noqa: F401
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(error.name or "torch", "torch") from None
        from assay.models.export.torch_export import export_module

        path = folder / "torch.onnx"
        export_module(self.factory(), self.inputs, self.outputs, path)
        return path
