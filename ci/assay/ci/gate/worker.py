"""The process that runs models for whoever counts from outside: its job comes on stdin, as JSON.

It runs under either side's own interpreter, where any version of Assay may lie, and so uses of it nothing but
``assay.runtime.load`` and ``Model.run``, which users call too: both sides are measured by the same code,
and each is loaded by its own runtime. ``sampling`` in the job is the path of ``assay.benchmarks.sampling``
of the Assay that measures.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

__all__ = ["load_inputs", "main"]

_ALIGNMENT_BYTES = 64


def main() -> int:
    """Do the job on stdin; 0, or 1 with one line on stderr."""
    job = json.load(sys.stdin)
    _module(job["sampling"]).limit_threads(job["threads"], job["cpus"])
    try:
        _run(job)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _run(job: dict[str, Any]) -> None:
    """Load each model, and run it as often as the job says."""
    from assay.runtime import load

    for subject in job["subjects"]:
        # Checking digests would take most of the instructions.
        model = load(subject["artifact"], threads=job["threads"], verify=False)
        inputs = load_inputs(subject["inputs"])
        for _ in range(job["calls"]):
            model.run(inputs)


def _module(path: str) -> ModuleType:
    """The module in the file at ``path``, whatever packages are installed."""
    spec = importlib.util.spec_from_file_location("gate_sampling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_inputs(path: str) -> dict[str, Any]:
    """The arrays of an .npz file, each at a boundary where no runtime has to copy it."""
    import numpy as np

    found = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            array = archive[name]
            room = np.empty(array.nbytes + _ALIGNMENT_BYTES, np.uint8)
            start = -room.ctypes.data % _ALIGNMENT_BYTES
            aligned = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            aligned[...] = array
            found[name] = aligned
    return found


if __name__ == "__main__":
    sys.exit(main())
