"""Runs of fake jobs on a cluster of threads, and of real ones on processes that are killed or lie."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.ci.farm import coordinator
from assay.ci.farm.cluster import connected, local_cluster
from assay.ci.farm.coordinator import Farm, Finished
from assay.ci.farm.execute import Answer, Order, Outcome, execute
from assay.ci.farm.jobs import Job, jobs_of
from assay.ci.farm.journal import Journal
from assay.ci.farm.kinds import JobKind, NonsenseError, Result
from assay.ci.farm.spec import BenchSettings, FarmSettings, FarmSpec, Matrix
from assay.errors import FarmError
from assay.registry import Registry
from assay.results.record import read_records

distributed = pytest.importorskip("distributed", reason="needs the extra `farm`: pip install distributed")


def _content(job: Job) -> bytes:
    return f"{job.kind} of {job.model}".encode()


def _check(job: Job, result: Result, needed: Result, _seconds: float) -> None:
    if result.get("file") != _content(job):
        raise NonsenseError("it is not what it should be")
    if job.kind == "time" and needed.get("file") is None:
        raise NonsenseError("it did not get what it needs")


def _keep(job: Job, result: Result, folder: Path) -> None:
    (folder / f"{job.kind}-{job.model}").write_bytes(result["file"])


@pytest.fixture
def _fake_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[JobKind] = Registry("kind")
    for name, times, needs in (("make", False, None), ("time", True, "make")):
        registry.add(
            name,
            JobKind(name=name, times=times, needs=needs, run=lambda *_: None, check=_check, keep=_keep),
        )
    monkeypatch.setattr(coordinator, "kinds", lambda: registry)


def _jobs(*models: str) -> list[Job]:
    return [
        Job(kind=kind, model=model, target="t", scheme="s", profile="p")
        for kind in ("make", "time")
        for model in models
    ]


def _done(job: Job, *, key: str | None = None, status: Any = "done", **changes: Any) -> bytes:
    return msgspec.json.encode(Outcome(key=key or job.key, status=status, seconds=0.1, host="h", **changes))


class Workers:
    """What the workers of a test do: by default what is right; ``act`` may do something else first.

    ``calls`` has the label of every job that was begun.
    """

    def __init__(self, act: Callable[[Job, str], Answer | None] = lambda job, worker: None) -> None:
        self.act = act
        self.calls: list[str] = []

    def __call__(self, order: bytes, needed: Mapping[str, bytes]) -> Answer:
        job = msgspec.json.decode(order, type=Order).job
        self.calls.append(job.label)
        answer = self.act(job, distributed.get_worker().address)
        return answer or (_done(job), {"file": _content(job)})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, threads of this process, that may be timed on."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50,
        resources={"timing": 1},
    ) as made:  # fmt: skip
        yield made


@pytest.fixture
def run(cluster: Any, tmp_path: Path, _fake_kinds: None) -> Iterator[Callable[..., list[Finished]]]:
    with distributed.Client(cluster) as client:

        def run_farm(workers: Workers, jobs: list[Job], **changes: Any) -> list[Finished]:
            settings = FarmSettings(**({"retries": 2} | changes))
            holder["workers"] = workers
            told.clear()
            farm = Farm(
                client=client, journal=Journal(tmp_path), folder=tmp_path, settings=settings,
                tell=told.append, run_job=_held, lost_seconds=0.5,
            )  # fmt: skip
            return farm.run(jobs)

        yield run_farm


told: list[str] = []
holder: dict[str, Workers] = {}


def _held(order: bytes, needed: Mapping[str, bytes]) -> Answer:
    """What workers are sent: the threads of this process find the test's workers by it."""
    return holder["workers"](order, needed)


def _statuses(finished: list[Finished]) -> Counter[str]:
    return Counter(each.status for each in finished)


def test_jobs_run_in_the_order_of_what_they_need(run: Any, tmp_path: Path) -> None:
    workers = Workers()
    finished = run(workers, _jobs("a", "b", "c"))
    assert _statuses(finished) == {"done": 6}
    assert len(workers.calls) == 6
    for model in "abc":
        assert workers.calls.index(f"make {model} t s p 1 thread") < workers.calls.index(
            f"time {model} t s p 1 thread"
        )
        assert (tmp_path / f"time-{model}").read_bytes() == f"time of {model}".encode()


def test_what_was_done_is_not_done_again(run: Any, tmp_path: Path) -> None:
    run(Workers(), _jobs("a"))
    (tmp_path / "make-a").unlink()
    again = Workers()
    finished = run(again, _jobs("a", "b"))
    assert _statuses(finished) == {"earlier": 2, "done": 2}
    assert all(" b " in call for call in again.calls)
    assert (tmp_path / "make-a").exists()


def test_a_job_that_fails_once_is_tried_again(run: Any) -> None:
    failures = iter(["crashed", "expired"])

    def act(job: Job, worker: str) -> Answer | None:
        status = next(failures, None)
        return (_done(job, status=status, message="it broke"), {}) if status else None

    finished = run(Workers(act), _jobs("a")[:1])
    assert [(each.status, each.attempts) for each in finished] == [("done", 3)]
    assert told[0].endswith("it broke; trying again (1 of 2)")


def test_tries_are_bounded_and_what_needs_it_is_skipped(run: Any) -> None:
    def act(job: Job, worker: str) -> Answer | None:
        return (_done(job, status="crashed", message="it broke"), {}) if job.model == "a" else None

    workers = Workers(act)
    finished = {each.job.label: each for each in run(workers, _jobs("a", "b"), retries=1)}
    assert (finished["make a t s p 1 thread"].status, finished["make a t s p 1 thread"].attempts) == (
        "failed",
        2,
    )
    assert finished["time a t s p 1 thread"].status == "skipped"
    assert finished["time b t s p 1 thread"].status == "done"
    assert Counter(workers.calls)["make a t s p 1 thread"] == 2


def test_an_error_of_the_job_itself_is_final(run: Any) -> None:
    def act(job: Job, worker: str) -> Answer:
        return _done(job, status="failed", exit_code=6, message="No operator."), {}

    workers = Workers(act)
    finished = run(workers, _jobs("a")[:1])
    assert [(each.status, each.message, each.attempts) for each in finished] == [
        ("failed", "No operator.", 1)
    ]


def test_an_exception_of_a_worker_is_a_failed_try(run: Any) -> None:
    first = threading.Event()

    def act(job: Job, worker: str) -> None:
        if not first.is_set():
            first.set()
            raise RuntimeError("no disk")

    assert _statuses(run(Workers(act), _jobs("a")[:1])) == {"done": 1}
    assert "it was lost (RuntimeError: no disk)" in told[0]


NONSENSE: dict[str, Callable[[Job], Any]] = {
    "another content": lambda job: (_done(job), {"file": b"nonsense"}),
    "no file": lambda job: (_done(job), {}),
    "another key": lambda job: (_done(job, key="0" * 32), {"file": _content(job)}),
    "no outcome": lambda job: (b"nonsense", {"file": _content(job)}),
    "no answer": lambda job: 7,
    "files of other types": lambda job: (_done(job), {"file": 7}),
    "a status that is none": lambda job: (_done(job).replace(b"done", b"best"), {"file": _content(job)}),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_worker_that_gives_nonsense_gets_no_more_jobs(run: Any, cluster: Any, nonsense: str) -> None:
    liar = cluster.workers[0].address
    by: Counter[str] = Counter()

    def act(job: Job, worker: str) -> Any:
        by[worker] += 1
        if worker == liar:
            return NONSENSE[nonsense](job)
        time.sleep(0.1)  # so that the liar gets some too
        return None

    finished = run(Workers(act), _jobs(*"abcd"))
    assert _statuses(finished) == {"done": 8}
    assert by[liar] >= 1
    assert any(f"the worker {liar} gave nonsense" in line for line in told)


def test_without_a_worker_that_is_trusted_the_run_ends(run: Any) -> None:
    workers = Workers(lambda job, worker: (_done(job), {"file": b"nonsense"}))
    with pytest.raises(FarmError, match="so none is left"):
        run(workers, _jobs("a", "b"), retries=5)


def test_nonsense_counts_as_a_try(run: Any) -> None:
    workers = Workers(lambda job, worker: (_done(job), {"file": b"nonsense"}))
    finished = run(workers, _jobs("a")[:1], retries=0)
    assert [each.status for each in finished] == ["failed"]


@pytest.mark.usefixtures("_fake_kinds")
def test_without_a_worker_that_may_be_timed_on_the_run_ends(tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        holder["workers"] = Workers()
        farm = Farm(
            client=client, journal=Journal(tmp_path), folder=tmp_path, settings=FarmSettings(), run_job=_held,
            tell=told.append, lost_seconds=0.5,
        )  # fmt: skip
        with pytest.raises(FarmError, match="No worker with the resource 'timing'"):
            farm.run(_jobs("a"))
    assert (tmp_path / "make-a").exists()  # what could be done is kept


def test_no_scheduler_there() -> None:
    with (
        pytest.raises(FarmError, match="No Dask scheduler answers at nonsense://here"),
        connected("nonsense://here"),
    ):
        pass


def _real_farm(client: Any, tmp_path: Path, run_job: Any) -> Farm:
    settings = FarmSettings(retries=3, most_load=1.0, job_seconds=600.0)
    return Farm(
        client=client, journal=Journal(tmp_path / "farm"), folder=tmp_path / "farm", settings=settings,
        cache=tmp_path / "cache", run_job=run_job, tell=told.append,
    )  # fmt: skip


# Does jobs, and then changes what they gave, on the worker whose process a file names. A module of its own,
# because workers import what they are sent.
_LIAR = """
import os
from assay.ci.farm.execute import execute

def lie(order, needed):
    outcome, files = execute(order, needed)
    with open(os.environ["LIAR"]) as process:
        if process.read() != str(os.getpid()):
            return outcome, files
    return outcome, {name: content[:-100] + bytes(100) for name, content in files.items()}
"""


def _kill_when_it_works(process: int, killed: list[int]) -> None:
    """Kill ``process`` as soon as it has a job's process; note which one that was."""
    children = Path(f"/proc/{process}/task")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [child for task in children.glob("*/children") for child in task.read_text().split()]
        if found:
            killed += [int(child) for child in found]
            os.kill(process, signal.SIGKILL)
            return
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_worker_that_is_killed_and_one_that_lies(
    tmp_path: Path, product_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/lying_worker.py").write_text(_LIAR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv("LIAR", str(tmp_path / "liar"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    lie = importlib.import_module("lying_worker").lie
    spec = FarmSpec(
        matrix=Matrix(
            models=(product_file,), targets=("x86-64-v2", "x86-64-v3"), profiles=("release", "debug")
        ),
        bench=BenchSettings(rounds=1, seconds=0.01),
    )
    jobs = jobs_of(spec)
    (tmp_path / "farm").mkdir()
    told.clear()
    killed: list[int] = []
    with local_cluster(3) as client:
        processes = sorted(client.run(os.getpid).values())
        (tmp_path / "liar").write_text(str(processes[0]))
        killer = threading.Thread(target=_kill_when_it_works, args=(processes[1], killed))
        killer.start()
        finished = _real_farm(client, tmp_path, lie).run(jobs)
        killer.join()
    assert _statuses(finished) == {"done": len(jobs)}
    assert killed, "the worker had a job when it was killed"
    assert not any(Path(f"/proc/{process}").exists() for process in killed), "its job ended with it"
    assert sum("gave nonsense" in line for line in told) >= 1
    files = sorted((tmp_path / "farm/runs").iterdir())
    measured = [job for job in jobs if job.kind == "bench"]
    assert len(files) == len(measured), "one file of records a job, however often it ran"
    assert {read_records(path)[0].run_id for path in files} == {path.stem for path in files}
    with local_cluster(1) as client:
        again = _real_farm(client, tmp_path, execute).run(jobs)
    assert _statuses(again) == {"earlier": len(jobs)}
