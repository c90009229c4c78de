"""Processes that measure: what they are given, how long they may take, and what is said when they fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from assay.compile.pgo.workload import WorkloadCase
from assay.errors import AssayError

__all__ = ["run_worker", "save_cases", "saved_cases"]

_INDEX = "cases.json"


def run_worker(module: str, arguments: Sequence[str], timeout: float, failure: type[AssayError]) -> str:
    """Run ``python -m module`` and give its stdout.

    Raises ``failure`` where it crashes, ends with an error, or takes more than ``timeout`` seconds.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise failure(f"The compiled model was not done in {timeout:g} s.") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else "no message"
        if result.returncode < 0:
            reason = f"it crashed with signal {-result.returncode}"
        raise failure(f"The compiled model cannot be measured: {reason}")
    return result.stdout


def save_cases(folder: Path, cases: Sequence[WorkloadCase]) -> None:
    """Write cases into ``folder`` for a worker to read."""
    import numpy as np

    index = []
    for i, case in enumerate(cases):
        np.savez(folder / f"case{i}.npz", *case.inputs.values())
        names = list(case.inputs)
        index.append({"name": case.name, "sizes": dict(case.sizes), "count": case.count, "inputs": names})
    (folder / _INDEX).write_text(json.dumps(index))


def saved_cases(folder: Path) -> list[WorkloadCase]:
    """The cases that ``save_cases`` wrote."""
    import numpy as np

    cases = []
    for i, entry in enumerate(json.loads((folder / _INDEX).read_text())):
        with np.load(folder / f"case{i}.npz") as archive:
            inputs = {name: archive[f"arr_{k}"] for k, name in enumerate(entry["inputs"])}
        cases.append(
            WorkloadCase(name=entry["name"], inputs=inputs, sizes=entry["sizes"], count=entry["count"])
        )
    return cases
