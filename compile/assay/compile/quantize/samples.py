"""Inputs to calibrate on: a folder of recorded ones, or a model's representative ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.inputs import make_inputs

if TYPE_CHECKING:
    from assay.models.spec import Array, ModelSpec

__all__ = ["read_samples", "representative_samples"]

# Verification runs on the seeds from 0 on.
_FIRST_SEED, _COUNT = 1000, 16


def representative_samples(
    spec: ModelSpec, *, count: int = _COUNT, seed: int = _FIRST_SEED
) -> list[dict[str, Array]]:
    """``count`` sets of representative inputs by name, at the default sizes, seeded from ``seed`` on."""
    return [make_inputs(spec, seed=seed + index) for index in range(count)]


def read_samples(folder: Path, spec: ModelSpec) -> Sequence[dict[str, Array]]:
    """Every case of a folder as ``assay run --record`` writes it, in the order of their names.

    Raises WorkloadError for a folder without cases, and for a case that does not fit the model.
    """
    from assay.compile.describe import interface_of
    from assay.compile.pgo.workload import read_cases

    return [dict(case.inputs) for case in read_cases(folder, interface_of(spec))]
