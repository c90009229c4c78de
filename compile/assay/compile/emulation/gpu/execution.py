"""Artifacts for GPUs that this machine lacks, run on the CPU from the source of their kernels."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.compile.targets.gpu_target import GpuApi, GpuTarget
from assay.compile.verify import read_outputs, save_inputs
from assay.errors import EmulatorError, VerificationError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.compile.verify import Case

__all__ = ["emulated_form", "emulation_note", "run_emulated"]

_TIMEOUT_SECONDS: float = 900
# NVRTC's plainest architecture: what is run is the source beside its machine code.
_STAND_IN_ARCHITECTURE = "sm_75"


def emulated_form(target: GpuTarget) -> GpuTarget | None:
    """The target whose source the CPU runs in the place of ``target``'s code; None where there is none.

    CUDA and Metal are themselves. ROCm's code comes from LLVM without a source: the model is compiled once
    more as CUDA C++, with ROCm's limits, waves and schedules.
    """
    if target.api in (GpuApi.CUDA, GpuApi.METAL):
        return target
    if target.api is not GpuApi.ROCM:
        return None
    return replace(
        target,
        api=GpuApi.CUDA,
        kind="cuda",
        architecture=_STAND_IN_ARCHITECTURE,
        options=(("arch", _STAND_IN_ARCHITECTURE),),
        stands_for=target,
    )


def emulation_note(target: GpuTarget, form: GpuTarget) -> str:
    """What the errors are those of, for the manifest."""
    if form is target:
        return "The errors are those of the kernels' source, compiled for the CPU with headers of ours."
    return (
        f"The errors are those of the model as CUDA C++ with waves of {form.warp_size} threads, "
        "compiled for the CPU with headers of ours."
    )


def run_emulated(path: Path, cases: Sequence[Case], *, level: str) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs by name of ``level`` of the artifact for each case, from a process of its own.

    Raises EmulatorError where the source cannot be run on the CPU or takes too long, and VerificationError
    where it crashes or writes where it may not.
    """
    with tempfile.TemporaryDirectory(prefix="assay-emulate-") as name:
        folder = Path(name)
        save_inputs(folder, cases)
        module = "assay.compile.emulation.gpu.worker"
        command = [sys.executable, "-m", module, str(path), level, str(folder), str(len(cases))]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EmulatorError(f"The kernels took more than {_TIMEOUT_SECONDS} s on the CPU.") from error
        lines = result.stderr.strip().splitlines() or ["no message"]
        if result.returncode == EmulatorError.exit_code:
            raise EmulatorError(lines[-1])
        if result.returncode < 0:
            raise VerificationError(f"The kernels crashed with signal {-result.returncode} on the CPU.")
        if result.returncode:
            raise VerificationError(f"The kernels cannot be run on the CPU: {lines[-1]}")
        return read_outputs(folder, cases)
