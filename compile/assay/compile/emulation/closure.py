"""Every file that one run of the verification worker reads: ``python -m assay.compile.emulation.closure``.

The emulated machine gets these files and no others, under the same paths.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]

_NOT_FILES = ("/proc/", "/sys/", "/dev/")


def main(arguments: list[str]) -> int:
    """Run the worker on ARTIFACT FOLDER COUNT, and write to the file named first what it needed, as JSON.

    ``path`` holds Python's search path, ``files`` the absolute paths of what was opened or mapped.
    """
    opened: set[str] = set()

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(details[0], str | bytes):
            opened.add(os.path.abspath(os.fsdecode(details[0])))  # noqa: PTH100 (links must stay)

    sys.addaudithook(hook)
    code = _exercise(*arguments[1:])
    for module in list(sys.modules.values()):  # those of the interpreter's start, before the hook
        names = (getattr(module, "__file__", None), getattr(module, "__cached__", None))
        opened |= {name for name in names if isinstance(name, str)}
    for line in Path("/proc/self/maps").read_text().splitlines():
        opened |= set(line.split(maxsplit=5)[5:])
    opened.add(os.path.realpath(sys.executable))
    files = sorted(name for name in opened if not name.startswith(_NOT_FILES) and Path(name).is_file())
    Path(arguments[0]).write_text(json.dumps({"path": [p for p in sys.path if p], "files": files}))
    return code


def _exercise(artifact: str, folder: str, count: str) -> int:
    """Run the worker on a level that this machine has; where it has none, load one and run nothing of it."""
    import numpy as np

    from assay.compile import verify_worker
    from assay.runtime.artifact import open_artifact
    from assay.runtime.drivers.tvm_vm import TvmVm
    from assay.runtime.levels import fits

    opened = open_artifact(artifact)
    fitting = [level.target.name for level in opened.manifest.levels if fits(level)]
    if fitting:
        return verify_worker.main([artifact, fitting[-1], folder, count])
    TvmVm(opened, opened.manifest.levels[0].entry)
    with np.load(Path(folder) / "inputs0.npz") as archive:
        np.savez(Path(folder) / "outputs0.npz", *archive.values())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
