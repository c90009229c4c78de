"""What a machine is and has, for measurements: ``python -m assay.benchmarks.describe`` writes it as JSON.

It reads a ``Question`` on stdin, and writes a ``Description`` to ``description.json`` in the current folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from assay.benchmarks.machine import fingerprint
from assay.benchmarks.peers import ModelFiles, engines
from assay.benchmarks.provenance import versions
from assay.compile.targets.microarchitecture import cpu_model, microarchitecture
from assay.results.record import Machine

__all__ = ["DESCRIPTION", "Description", "EngineInfo", "Question", "main"]

DESCRIPTION = "description.json"


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which engines can run ``model``? ``canonical``: whether its canonical ONNX is at hand."""

    model: str
    canonical: bool


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine: its version, or why it cannot run the model."""

    version: str | None = None
    unavailable: str | None = None


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine, the versions that matter there, and its engines by name.

    ``microarchitecture`` and ``cpu_model`` are as ``assay.compile.targets.microarchitecture`` has them.
    """

    machine: Machine
    versions: dict[str, str]
    engines: dict[str, EngineInfo]
    microarchitecture: str | None
    cpu_model: str


def main() -> int:
    """Answer the question on stdin."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    files = ModelFiles(
        name=question.model,
        artifact=Path("artifact"),
        canonical=Path("model.onnx") if question.canonical else None,
    )
    found = {}
    for name, engine in engines().items():
        reason = engine.unavailable(files)
        found[name] = EngineInfo(unavailable=reason) if reason else EngineInfo(version=engine.version())
    description = Description(
        machine=fingerprint(),
        versions=versions(),
        engines=found,
        microarchitecture=microarchitecture(),
        cpu_model=cpu_model(),
    )
    Path(DESCRIPTION).write_bytes(msgspec.json.encode(description))
    return 0


if __name__ == "__main__":
    sys.exit(main())
