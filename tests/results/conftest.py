from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from assay.results.record import Machine, Record
from assay.results.synthetic import SyntheticHistory, make_history

MACHINE = Machine(
    cpu="Test CPU",
    architecture="x86_64",
    features=("avx2", "fma"),
    cores=2,
    cpus=2,
    memory_bytes=8 << 30,
    system="Linux 6.1",
    governor=None,
    virtualisation="kvm",
)


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """A function that makes a record from the samples of each round and from the fields that matter."""

    def make(rounds: list[list[float]] | None = None, **changes: Any) -> Record:
        rounds = rounds or [[0.010, 0.011], [0.012, 0.013, 0.014]]
        fields: dict[str, Any] = {
            "run_id": "run-1",
            "time": "2026-01-02T03:04:05Z",
            "model": "tiny",
            "weights": "trained",
            "sizes": {},
            "target": "x86-64-v3",
            "scheme": "f32",
            "profile": "release",
            "artifact": "sha256:0123456789abcdef",
            "engine": "assay",
            "threads": 1,
            "metric": "latency",
            "unit": "s",
            "value": 0.0125,
            "interval": None,
            "samples": tuple(sample for samples in rounds for sample in samples),
            "samples_per_round": tuple(len(samples) for samples in rounds),
            "note": "the artifact",
            "machine": MACHINE,
            "versions": {"numpy": "2.0"},
            "commit": None,
            "dirty": None,
        }
        return Record(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def synthetic_history(tmp_path_factory: pytest.TempPathFactory) -> SyntheticHistory:
    """A repository with 30 commits and records of each; not to be changed."""
    return make_history(tmp_path_factory.mktemp("history") / "repository")
