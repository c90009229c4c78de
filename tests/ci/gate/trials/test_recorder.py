from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from assay.benchmarks.machine import choose_cpus
from assay.ci.gate.processes import Contender
from assay.ci.gate.trials import recorder
from assay.ci.gate.trials.lines import read_lines
from assay.ci.gate.trials.load_generator import loaded
from assay.ci.gate.trials.recorder import RecordedPair
from assay.ci.gate.trials.subjects import Subject


def test_pairs_of_both_kinds_are_recorded(
    tmp_path: Path, runtime: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifact").write_text("def run(inputs): sum(range(2000))")
    np.savez(tmp_path / "inputs.npz", x=np.zeros(3, np.float32))
    same = Contender(
        python=Path(sys.executable),
        artifact=tmp_path / "artifact",
        inputs=tmp_path / "inputs.npz",
        threads=1,
        cpus=choose_cpus(1),
        seconds=0.005,
        environment=runtime,
    )
    subjects = [Subject(name=name, base=same, heads={0.0: same}) for name in ("first", "second")]
    monkeypatch.setattr(recorder, "build_subjects", lambda folder: subjects)
    pool = tmp_path / "pool"
    for count in (2, 2, 3):
        assert recorder.main([str(pool), "--builds", str(tmp_path), "--count", str(count)]) == 0
        pairs = read_lines(pool, RecordedPair)
        assert [pair.in_turn for pair in pairs] == [True, False, True][:count]
    assert all(set(pair.runs) == {"first", "second"} for pair in pairs)
    assert all(min(run.cpu) > 0 for pair in pairs for both in pair.runs.values() for run in both)


def test_the_load_generator_ends() -> None:
    with loaded(processes=1) as (process,):
        assert process.poll() is None
    assert process.poll() is not None
