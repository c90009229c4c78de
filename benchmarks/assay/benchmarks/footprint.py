"""What it takes to have and to start an engine: installed size, import-and-load time, peak memory.

::

    python -m assay.benchmarks.footprint ARTIFACT [--onnx CANONICAL.onnx] [--rounds N] [--threads N] [--json]

Every sample comes from a fresh process, engines in turn. Time runs from just before the engine is imported
until the model is loaded; NumPy's import is inside. Memory is the most that the process ever had resident,
after a few runs at the default sizes, the interpreter included. File caches are warm.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.benchmarks.peers import ModelFiles, engines
from assay.benchmarks.sampling import peak_memory
from assay.errors import AssayError, BenchmarkError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Footprint", "installed_size", "main", "measure"]

_DISTRIBUTIONS = {"assay": "assay", "onnxruntime": "onnxruntime", "torch": "torch"}
_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Samples of one engine, one a process: times in seconds, memory in bytes.

    ``installed_bytes`` counts the engine and all that it requires, by distribution.
    """

    engine: str
    installed_bytes: dict[str, int]
    load_seconds: tuple[float, ...]
    first_run_seconds: tuple[float, ...]
    loaded_peak_bytes: tuple[int, ...]
    peak_bytes: tuple[int, ...]


def installed_size(distribution: str) -> dict[str, int]:
    """Bytes of the installed files of a distribution and of all that it requires without extras.

    Compiled bytecode does not count. A distribution in editable mode counts with its sources.
    """
    sizes: dict[str, int] = {}
    pending = [distribution]
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in sizes:
            continue
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on another platform only
        sizes[name] = _size(found)
        for requirement in found.requires or []:
            needed, _, marker = requirement.partition(";")
            if "extra" not in marker:
                pending.append(re.split(r"[^\w.-]", needed.strip(), maxsplit=1)[0])
    return sizes


def measure(files: ModelFiles, *, names: Sequence[str], threads: int, rounds: int) -> list[Footprint]:
    """Footprints of engines on one model. Raises BenchmarkError when one fails."""
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        # The order alternates, so that none always comes after the same other.
        for name in names if number % 2 == 0 else reversed(names):
            samples[name].append(_sample(name, files, threads))
    return [
        Footprint(
            engine=name,
            installed_bytes=installed_size(_DISTRIBUTIONS.get(name, name)),
            **{key: tuple(sample[key] for sample in taken) for key in taken[0]},
        )
        for name, taken in samples.items()
    ]


def _size(found: importlib.metadata.Distribution) -> int:
    if found.metadata["Name"] == "assay":
        import assay

        files = [path for folder in assay.__path__ for path in Path(folder).rglob("*")]
    else:
        files = [Path(str(found.locate_file(file))) for file in found.files or []]
    kept = (path for path in files if "__pycache__" not in path.parts and path.is_file())
    return sum(path.stat().st_size for path in kept)


def _sample(name: str, files: ModelFiles, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __spec__.name, "--child", name, "--threads", str(threads)]
    command += [str(files.artifact), *(["--onnx", str(files.canonical)] if files.canonical else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # Our own errors are a sentence or two; anything else is a traceback, whose last line tells.
        lines = done.stderr.strip().splitlines() or ["no message"]
        told = " ".join(lines) if done.returncode > 1 else lines[-1]
        raise BenchmarkError(f"The engine {name} failed: {told}")
    sample: dict[str, Any] = json.loads(done.stdout)
    return sample


def _child(name: str, files: ModelFiles, threads: int) -> dict[str, Any]:
    start = time.perf_counter()
    session = engines()[name].load(files, threads)
    loaded = time.perf_counter()
    loaded_peak = _peak_bytes()
    inputs = _zeros(files.artifact)
    before = time.perf_counter()
    session.run(inputs)
    first = time.perf_counter()
    for _ in range(_RUNS - 1):
        session.run(inputs)
    return {
        "load_seconds": loaded - start,
        "first_run_seconds": first - before,
        "loaded_peak_bytes": loaded_peak,
        "peak_bytes": _peak_bytes(),
    }


def _zeros(artifact: Path) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    from assay.runtime.artifact import open_artifact

    interface = open_artifact(artifact, verify=False).manifest.inputs
    return {
        spec.name: np.zeros([d if isinstance(d, int) else d.default for d in spec.shape], spec.dtype)
        for spec in interface
    }


def _peak_bytes() -> int:
    """The most memory that this process had resident, in bytes."""
    peak = peak_memory()
    if peak is None:
        raise BenchmarkError("This system does not tell a process's peak memory.")
    return peak


def _table(footprints: Sequence[Footprint]) -> str:
    header = ("engine", "installed [MB]", "import + load [s]", "first run [s]", "loaded [MB]", "peak [MB]")
    rows = [header]
    for each in footprints:
        rows.append(
            (
                each.engine,
                f"{sum(each.installed_bytes.values()) / 1e6:.1f}",
                f"{statistics.median(each.load_seconds):.3f}",
                f"{statistics.median(each.first_run_seconds):.3f}",
                f"{statistics.median(each.loaded_peak_bytes) / 1e6:.1f}",
                f"{statistics.median(each.peak_bytes) / 1e6:.1f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m assay.benchmarks.footprint", description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--onnx", type=Path, help="canonical ONNX of the same model, for ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    files = ModelFiles(name="footprint", artifact=options.artifact, canonical=options.onnx)
    try:
        if options.child:
            print(json.dumps(_child(options.child, files, options.threads)))
            return 0
        names = ["assay", *(["onnxruntime"] if options.onnx else [])]
        found = measure(files, names=names, threads=options.threads, rounds=options.rounds)
    except AssayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps([asdict(each) for each in found], indent=2) if options.json else _table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
