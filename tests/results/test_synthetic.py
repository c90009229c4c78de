from __future__ import annotations

import subprocess

import numpy as np
import pytest

from assay.results.record import read_records
from assay.results.store import open_store
from assay.results.synthetic import Benchmark, Noise, draw_levels, make_history


def git(folder, *arguments):
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_every_commit_has_records(synthetic_history):
    commits = git(synthetic_history.repository, "rev-list", "--reverse", "HEAD")
    assert tuple(commits) == synthetic_history.commits
    assert len(commits) == 30
    assert git(synthetic_history.repository, "status", "--porcelain") == []
    found = [read_records(path)[0] for path in sorted(synthetic_history.results.iterdir())]
    assert [record.commit for record in found] == commits
    assert {record.branch for record in found} == {"main"}


def test_steps_are_where_they_are_planted(synthetic_history, tmp_path):
    with open_store(synthetic_history.results, database=tmp_path / "index.sqlite") as store:
        series = {each.key: each for each in store.series()}
        assert store.exclusions == ()
    steps = synthetic_history.steps
    planted = {(step.key, step.commit) for step in steps}
    assert len(planted) == len(steps)
    for step in steps:
        at = synthetic_history.commits.index(step.commit)
        values = [point.value for point in series[step.key].points]
        before, after = np.median(values[max(at - 8, 0) : at]), np.median(values[at : at + 8])
        assert after / before == pytest.approx(step.ratio, abs=0.015)


def test_the_same_seed_makes_the_same_history(tmp_path):
    benchmarks = (
        Benchmark(model="a", value=0.01, noise=Noise.HEAVY_TAILS),
        Benchmark(model="b", value=1024, metric="artifact_size", noise=Noise.NONE, steps=((2, 2.0),)),
    )
    first, second, other = (
        make_history(tmp_path / name, commits=3, seed=seed, benchmarks=benchmarks)
        for name, seed in (("first", 1), ("second", 1), ("other", 2))
    )
    assert first.commits == second.commits
    for path in first.results.iterdir():
        assert path.read_bytes() == (second.results / path.name).read_bytes()
    assert first.commits != other.commits
    sizes = [read_records(path)[1].value for path in sorted(first.results.iterdir())]
    assert sizes == [1024, 1024, 2048]


def test_a_step_needs_a_commit(tmp_path):
    with pytest.raises(ValueError, match="no commit 9"):
        make_history(tmp_path, commits=9, benchmarks=[Benchmark(model="a", value=1, steps=((9, 2.0),))])


def test_heavy_tails_reach_further():
    generator = np.random.default_rng(0)
    widest = {
        noise: max(draw_levels(noise, 0.01, 2000, generator))
        for noise in (Noise.NONE, Noise.NORMAL, Noise.HEAVY_TAILS)
    }
    assert widest[Noise.NONE] == 1.0
    assert 1.02 < widest[Noise.NORMAL] < 1.06
    assert widest[Noise.HEAVY_TAILS] > 1.1
