"""PyTorch on the module that a model is defined by: eager, and compiled with torch.compile."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.benchmarks.peers.engine import ModelFiles, Session

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.providers import TorchModule

__all__ = ["PyTorch", "TorchCompile"]

_COMPILERS = ("g++", "clang++")


@dataclass(frozen=True, kw_only=True)
class PyTorch:
    """Eager inference: no compilation, no gradients."""

    name: str = "torch"
    note: str = "the model's PyTorch module, eager, inference mode"
    loads_file: bool = False

    def unavailable(self, files: ModelFiles) -> str | None:
        """Needs the package, and a model that is defined as a PyTorch module, or a reference kernel."""
        return _unavailable(files)

    def version(self) -> str:
        """PyTorch's version."""
        return importlib.metadata.version("torch")

    def load(self, files: ModelFiles, threads: int) -> Session:
        """The module, built from its definition."""
        return _load(files, threads, lambda function: function)

    def size_bytes(self, files: ModelFiles) -> int | None:
        """None: the module is made from its definition."""
        return None


@dataclass(frozen=True, kw_only=True)
class TorchCompile:
    """``torch.compile`` with its default back end, Inductor; static shapes, as it specializes by itself.

    Its first run compiles, and is outside of the latency: ``first_run_time`` has it. Compiled code is kept
    where torch keeps it, so that of several rounds the first one alone compiles from nothing.
    """

    name: str = "torch-compile"
    note: str = "the model's PyTorch module through torch.compile (inductor, defaults), inference mode"
    loads_file: bool = False

    def unavailable(self, files: ModelFiles) -> str | None:
        """Needs what eager PyTorch needs, and a C++ compiler."""
        compiler = os.environ.get("CXX")
        if not any(map(shutil.which, (compiler,) if compiler else _COMPILERS)):
            return "torch.compile needs a C++ compiler (g++), and there is none"
        return _unavailable(files)

    def version(self) -> str:
        """PyTorch's version."""
        return importlib.metadata.version("torch")

    def load(self, files: ModelFiles, threads: int) -> Session:
        """The module, to be compiled by its first run."""
        import torch

        return _load(files, threads, torch.compile)

    def size_bytes(self, files: ModelFiles) -> int | None:
        """None: the module is made from its definition."""
        return None


def _unavailable(files: ModelFiles) -> str | None:
    from assay.benchmarks.kernels import kernels

    if _provider(files) is None and files.name not in kernels():
        return f"{files.name} is not defined in PyTorch"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (extra: torch)"
    return None


def _provider(files: ModelFiles) -> TorchModule | None:
    from assay.models.providers import TorchModule
    from assay.models.registry import models

    known = models()
    provider = known[files.name].provider if files.name in known else None
    return provider if isinstance(provider, TorchModule) else None


def _load(files: ModelFiles, threads: int, prepare: Callable[[Any], Any]) -> Session:
    """The module, or the function of a kernel, after ``prepare``."""
    import torch

    from assay.benchmarks.kernels import kernels

    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:  # it can be set once only
        torch.set_num_interop_threads(1)
    provider = _provider(files)
    if provider is not None:
        module = prepare(provider.factory().eval())
        names = [item.name for item in provider.inputs]
        # By name: a module may take them in another order.
        return _Session(
            lambda *tensors: module(**dict(zip(names, tensors, strict=True))), names, list(provider.outputs)
        )
    spec = kernels()[files.name]
    return _Session(prepare(spec.torch), list(spec.inputs), ["y"])


class _Session:
    def __init__(self, function: Callable[..., Any], inputs: list[str], outputs: list[str]) -> None:
        import torch

        self._torch = torch
        self._function = function
        self._inputs = inputs
        self._outputs = outputs

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        torch = self._torch
        with torch.inference_mode():
            results = self._function(*(torch.from_numpy(inputs[name]) for name in self._inputs))
        if isinstance(results, torch.Tensor):
            results = (results,)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, results, strict=True)}
