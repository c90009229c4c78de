"""Any model to canonical ONNX: checked, bound to its interface, folded, and the same bytes every time."""

from __future__ import annotations

from assay.models.export.canonical import CanonicalModel, export_canonical
from assay.models.export.interface import OutputSpec

__all__ = ["CanonicalModel", "OutputSpec", "export_canonical"]
