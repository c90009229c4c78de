"""Code for GPUs without a GPU: machine code where a compiler here makes it, else checked source."""

from __future__ import annotations

from assay.compile.device_code.emit import emit_device_code
from assay.compile.device_code.emitted import EmittedCode

__all__ = ["EmittedCode", "emit_device_code"]
