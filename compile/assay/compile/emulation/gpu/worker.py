"""Run a level for a GPU on the CPU: ``... worker ARTIFACT LEVEL FOLDER COUNT``, as verify_worker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.compile.emulation.gpu.device import EmulatedDevice
from assay.compile.verify_worker import run_cases
from assay.errors import ArtifactError, AssayError
from assay.runtime.artifact import open_artifact
from assay.runtime.drivers.plan_device import DeviceCalls, read_device_code
from assay.runtime.plan import decode_plan
from assay.runtime.session import Model

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.artifact import Artifact
    from assay.runtime.manifest import Entry

__all__ = ["EmulatedDriver", "main"]


class EmulatedDriver:
    """The driver of a level for a GPU that runs its source on the CPU.

    Every other call resumes the threads of a block in the opposite order, so that results that depend on the
    order, for want of a barrier, do not agree with the reference.
    """

    def __init__(self, artifact: Artifact, entry: Entry, folder: Path) -> None:
        if entry.plan is None:
            raise ArtifactError(f"{entry.library} is code for a device without a launch plan.")
        code, files = read_device_code(artifact, entry)
        waves = [kernel.wave_size for kernel in code.kernels.values() if kernel.wave_size]
        weights = artifact.weights()
        self._calls = [
            DeviceCalls(
                decode_plan(artifact.read(entry.plan)),
                EmulatedDevice(folder, warp_size=max(waves, default=32), reverse=reverse),
                files,
                [weights[name] for name in entry.weights],
                [output.dtype for output in artifact.manifest.outputs],
            )
            for reverse in (False, True)
        ]
        self._count = 0

    def call(
        self,
        arrays: Sequence[npt.NDArray[Any]],
        threads: int,
        instrument: Callable[..., None] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``."""
        self._count += 1
        return self._calls[self._count % 2].call(arrays)

    def is_weight(self, tensor: Any) -> bool:
        """Never: nothing is observed."""
        return False


def main(arguments: list[str]) -> int:
    """Write FOLDER/outputsN.npz for each FOLDER/inputsN.npz; the code is that of the error, if any."""
    path, name, folder, count = arguments[0], arguments[1], Path(arguments[2]), int(arguments[3])
    try:
        artifact = open_artifact(path, verify=False)
        level = next(each for each in artifact.manifest.levels if each.target.name == name)
        driver = EmulatedDriver(artifact, level.entry, folder / "kernels")
        run_cases(Model(artifact.manifest, level, driver), folder, count)
    except AssayError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
