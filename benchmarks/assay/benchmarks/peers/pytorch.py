"""PyTorch in eager mode, on the module that a model is defined by."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.benchmarks.peers.engine import ModelFiles, Session

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.providers import TorchModule

__all__ = ["PyTorch"]


@dataclass(frozen=True, kw_only=True)
class PyTorch:
    """Eager inference: no compilation, no gradients."""

    name: str = "torch"
    note: str = "the model's PyTorch module, eager, inference mode"
    loads_file: bool = False

    def unavailable(self, files: ModelFiles) -> str | None:
        """Needs the package, and a model that is defined as a PyTorch module."""
        if _provider(files) is None:
            return f"{files.name} is not defined in PyTorch"
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed (extra: torch)"
        return None

    def version(self) -> str:
        """PyTorch's version."""
        return importlib.metadata.version("torch")

    def load(self, files: ModelFiles, threads: int) -> Session:
        """The module, built from its definition."""
        import torch

        provider = _provider(files)
        if provider is None:
            raise ValueError(f"{files.name} is not defined in PyTorch")
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        module = provider.factory().eval()
        return _Session(module, [item.name for item in provider.inputs], list(provider.outputs))

    def size_bytes(self, files: ModelFiles) -> int | None:
        """None: the module is made from its definition."""
        return None


def _provider(files: ModelFiles) -> TorchModule | None:
    from assay.models.providers import TorchModule
    from assay.models.registry import models

    known = models()
    provider = known[files.name].provider if files.name in known else None
    return provider if isinstance(provider, TorchModule) else None


class _Session:
    def __init__(self, module: Any, inputs: list[str], outputs: list[str]) -> None:
        import torch

        self._torch = torch
        self._module = module
        self._inputs = inputs
        self._outputs = outputs

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        torch = self._torch
        with torch.inference_mode():
            results = self._module(**{name: torch.from_numpy(inputs[name]) for name in self._inputs})
        if isinstance(results, torch.Tensor):
            results = (results,)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, results, strict=True)}
