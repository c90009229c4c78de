"""Running the code of a level that this machine lacks, in an emulated machine."""

from __future__ import annotations

from assay.compile.emulation.bochs import FEATURES, describe_emulator, missing_parts, run_emulated

__all__ = ["FEATURES", "describe_emulator", "missing_parts", "run_emulated"]
