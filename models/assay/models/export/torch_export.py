"""PyTorch modules to ONNX through ``torch.onnx.export(dynamo=True)``."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import ModelError
from assay.models.export.strip import strip_provenance
from assay.models.export.weights import save
from assay.models.spec import InputSpec, SymbolicDim

if TYPE_CHECKING:
    import torch

__all__ = ["OPSET", "export_module"]

# The newest opset of which the compiler's importer knows every operator that the exporter writes.
OPSET = 20


def export_module(
    module: torch.nn.Module, inputs: tuple[InputSpec, ...], outputs: tuple[str, ...], path: Path
) -> None:
    """Write ``module`` as ONNX to ``path``; raises ModelError if torch cannot.

    Weights beyond 64 MiB lie beside it. Symbolic dimensions become dimensions of the same names. Stack traces
    and other provenance, which differ between machines, are left out.
    """
    import torch

    module.eval()
    example = {spec.name: _example(spec) for spec in inputs}
    shapes = _dynamic_shapes(inputs)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (),
                kwargs=example,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[spec.name for spec in inputs],
                output_names=list(outputs),
                dynamic_shapes=shapes if any(shapes.values()) else None,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(f"torch cannot export the module as ONNX: {_first_line(error)}") from error
    assert program is not None
    model = program.model_proto
    strip_provenance(model)
    save(model, path, f"{path.name}.data")


def _example(spec: InputSpec) -> torch.Tensor:
    """Zeros of the default sizes: the exporter looks at shapes and dtypes only."""
    import torch

    # An example size of 1 would be taken for a constant.
    sizes = [max(2, dim.default) if isinstance(dim, SymbolicDim) else dim for dim in spec.shape]
    return torch.zeros(sizes, dtype=getattr(torch, spec.dtype.value))


def _dynamic_shapes(inputs: tuple[InputSpec, ...]) -> dict[str, dict[int, Any]]:
    import torch

    dims: dict[str, Any] = {}
    shapes: dict[str, dict[int, Any]] = {}
    for spec in inputs:
        shapes[spec.name] = {}
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, SymbolicDim):
                known = dims.setdefault(
                    dim.name, torch.export.Dim(dim.name, min=dim.minimum, max=dim.maximum)
                )
                shapes[spec.name][axis] = known
    return shapes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which writes warnings, log lines and prints about things nobody can act on."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
