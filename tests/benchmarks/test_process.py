from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from assay.benchmarks import process
from assay.benchmarks.process import serve
from assay.errors import BenchmarkError


class Job(msgspec.Struct):
    threads: int
    cpus: tuple[int, ...]
    report: str
    fails: bool = False


@pytest.fixture
def limits(monkeypatch):
    """What the process would have limited itself to."""
    found: list[object] = []
    monkeypatch.setattr(process, "limit_threads", lambda threads, cpus: found.append((threads, cpus)))
    return found


def measure(job: Job) -> dict[str, str]:
    if job.fails:
        raise BenchmarkError("it broke\ninto pieces", hint="Try again.")
    return {"of": job.report}


def test_every_job_gets_its_report(tmp_path, limits):
    jobs = [Job(2, (0, 1), os.fspath(tmp_path / name)) for name in "ab"]
    assert serve(jobs, measure) == 0
    assert limits == [(2, (0, 1))]
    for job in jobs:
        assert msgspec.json.decode(Path(job.report).read_bytes()) == {"of": job.report}


def test_an_error_is_one_line_and_ends_the_work(tmp_path, limits, capsys):
    first, last = (Job(1, (0,), os.fspath(tmp_path / name), fails=name == "a") for name in "ab")
    assert serve([first, last], measure) == 1
    assert capsys.readouterr().err.splitlines()[0].startswith("it broke into pieces")
    assert not list(tmp_path.iterdir())
