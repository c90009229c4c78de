"""What trials measure: small models, a kernel, and a kernel with slowdowns planted in it.

The planted kernel is a matrix product, of operands that both arrive at run time. The slowed one sums over
more elements, which are zero: its loop does that much more of the same work, and its output is the same. A
slowdown of 5% is a kernel compiled for 1050 elements in place of 1000, and not an estimate multiplied by
1.05.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.machine import choose_cpus
from assay.ci.gate.processes import Contender

if TYPE_CHECKING:
    from assay.models.spec import ModelSpec

__all__ = ["PLANTED", "SLOWDOWNS", "Subject", "build_subjects"]

PLANTED = "matmul-192x1000x192"
SLOWDOWNS = (0.03, 0.05, 0.1, 0.3)
_MODELS = ("silero-vad", "light-squeezenet")
_KERNELS = ("softmax",)
_ROWS, _DEPTH, _COLUMNS = 192, 1000, 192
_SECONDS, _LEAST_SAMPLES = 0.05, 5


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A benchmark: its base, and what its head may be by the slowdown; 0.0 is a copy of the base."""

    name: str
    base: Contender
    heads: dict[float, Contender]


def build_subjects(
    folder: Path, *, cache: Path | None = None, slowdowns: Sequence[float] = SLOWDOWNS, models: bool = True
) -> list[Subject]:
    """Build what trials measure into ``folder``, or take what is there. Raises what builds do.

    Base and head are artifacts of their own, in folders of their own, as they are in a gate run. Without
    ``models`` there is the planted kernel alone.
    """
    from assay.benchmarks.kernels import kernel_model, kernels
    from assay.models.registry import find_model

    folder.mkdir(parents=True, exist_ok=True)
    specs: list[ModelSpec] = []
    if models:
        specs += [find_model(name) for name in _MODELS]
        specs += [kernel_model(kernels()[name]) for name in _KERNELS]
    subjects = []
    for spec in specs:
        base, head = (_contender(spec, folder / side, cache) for side in ("base", "head"))
        subjects.append(Subject(name=spec.name, base=base, heads={0.0: head}))
    base = _contender(_product(0.0), folder / "base", cache)
    heads = {part: _contender(_product(part), folder / "head", cache) for part in (0.0, *slowdowns)}
    return [*subjects, Subject(name=PLANTED, base=base, heads=heads)]


def _product(slowdown: float) -> ModelSpec:
    from assay.benchmarks.kernels import kernel_model, kernels

    depth = round(_DEPTH * (1 + slowdown))
    spec = dataclasses.replace(
        kernels()["matmul-256"],
        name=f"matmul-{_ROWS}x{depth}x{_COLUMNS}",
        inputs={"a": (_ROWS, depth), "b": (depth, _COLUMNS)},
        output=(_ROWS, _COLUMNS),
        operations=2 * _ROWS * depth * _COLUMNS,
    )
    return kernel_model(spec)


def _contender(spec: ModelSpec, folder: Path, cache: Path | None) -> Contender:
    from assay.benchmarks.arrays import save_arrays
    from assay.compile.build import build_artifact
    from assay.models.inputs import make_inputs

    artifact, inputs = folder / spec.name, folder / f"{spec.name}.npz"
    if not inputs.exists():
        build_artifact(spec, target="native", output=artifact, cache=cache)
        arrays = make_inputs(spec, spec.default_sizes(), 0)
        if spec.name.startswith("matmul-"):
            arrays["a"][:, _DEPTH:] = 0
            arrays["b"][_DEPTH:] = 0
        save_arrays(inputs, arrays)
    return Contender(
        python=Path(sys.executable),
        artifact=artifact.absolute(),
        inputs=inputs.absolute(),
        threads=1,
        cpus=choose_cpus(1),
        seconds=_SECONDS,
        least_samples=_LEAST_SAMPLES,
    )
