"""The run of a farm: jobs go to workers, results are checked, and what went wrong goes somewhere else.

Nothing that a worker says is believed before it was checked here, and nothing is kept before that. A worker
that gave a result that cannot be gets no more jobs. A job is tried a bounded number of times; one that needs
a job that failed is not tried.
"""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from assay.ci.farm.cluster import TIMING
from assay.ci.farm.execute import Answer, Order, Outcome, execute
from assay.ci.farm.jobs import Job
from assay.ci.farm.journal import Journal
from assay.ci.farm.kinds import NonsenseError, Result, kinds
from assay.ci.farm.spec import FarmSettings
from assay.errors import AssayError, FarmError

__all__ = ["Farm", "Finished"]

_POLL_SECONDS = 1.0
_NO_WORKER_SECONDS = 120.0
# Errors of the job itself, which no other machine mends: names, models, operators, interfaces, outputs.
_FINAL_CODES = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 18})

Execute: TypeAlias = Callable[[bytes, Mapping[str, bytes]], Answer]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a job ended: ``done``, ``earlier`` (in an earlier run), ``failed`` or ``skipped``.

    ``attempts``: how often it was tried now.
    """

    job: Job
    status: str
    message: str = ""
    attempts: int = 0
    seconds: float = 0.0
    host: str = ""


@dataclass(kw_only=True)
class _Try:
    """A job that is away."""

    job: Job
    needed: Result
    attempt: int
    since: float
    future: Any
    parts: Any


@dataclass(kw_only=True)
class Farm:
    """Runs jobs on the cluster of ``client`` (of Dask distributed), results in ``journal``.

    What is kept for users goes below ``folder``. ``tell`` is called with a line for everything worth knowing.
    ``cache``: folder of the build cache on the workers. ``run_job`` is what workers do.
    """

    client: Any
    journal: Journal
    folder: Path
    settings: FarmSettings
    tell: Callable[[str], None] = print
    cache: Path | None = None
    run_job: Execute = execute
    lost_seconds: float = _NO_WORKER_SECONDS
    _distrusted: set[str] = field(default_factory=set, init=False)
    _finished: dict[str, Finished] = field(default_factory=dict, init=False)
    _results: dict[str, Result] = field(default_factory=dict, init=False)
    _away: dict[str, _Try] = field(default_factory=dict, init=False)
    _alone_since: float | None = field(default=None, init=False)
    _something_came: threading.Event = field(default_factory=threading.Event, init=False)

    def run(self, jobs: Sequence[Job]) -> list[Finished]:
        """How each of ``jobs`` ended, in their order. Raises FarmError where the cluster is gone.

        What was done is kept in any case: the same run goes on from there.
        """
        waiting = []
        for job in jobs:
            known = self.journal.find(job)
            problem = self._problem(job, known[1], jobs, float("inf")) if known else None
            if known and problem is None:
                self._keep(job, known[1])
                self._end(Finished(job=job, status="earlier", seconds=known[0].seconds, host=known[0].host))
            else:
                waiting.append(job)
        while waiting or self._away:
            waiting = self._start_ready(waiting, jobs)
            if self._away:
                self._collect(jobs)
        return [self._finished[job.key] for job in jobs]

    def _start_ready(self, waiting: Sequence[Job], jobs: Sequence[Job]) -> list[Job]:
        """Send out what can be; what has to wait for another job is left."""
        left = []
        for job in waiting:
            before = _needed_by(job, jobs)
            if before is None:
                self._send(job, {}, attempt=1)
            elif before.key not in self._finished:
                left.append(job)
            elif before.key in self._results:
                self._send(job, self._results[before.key], attempt=1)
            else:
                message = f"it needs {before.label}, which failed"
                self._end(Finished(job=job, status="skipped", message=message))
        return left

    def _send(self, job: Job, needed: Result, attempt: int) -> None:
        settings = self.settings
        order = Order(
            job=job, job_seconds=settings.job_seconds, most_load=settings.most_load,
            idle_seconds=settings.idle_seconds, cache=str(self.cache) if self.cache else None,
        )  # fmt: skip
        options: dict[str, Any] = {}
        if kinds()[job.kind].times and job.device is None:
            options["resources"] = {TIMING: 1}
        if self._distrusted:
            options |= {"workers": self._trusted(), "allow_other_workers": False}
        # In a list: of a dict, the names would be the cluster's keys, the same for every job.
        parts = self.client.scatter([dict(needed)], hash=False)[0] if needed else {}
        name = f"{job.kind}-{job.key}-{attempt}-{len(self._distrusted)}-{time.monotonic_ns()}"
        future = self.client.submit(
            self.run_job, msgspec.json.encode(order), parts, key=name, pure=False, retries=0, **options
        )
        future.add_done_callback(lambda _: self._something_came.set())
        self._away[job.key] = _Try(
            job=job, needed=needed, attempt=attempt, since=time.monotonic(), future=future, parts=parts
        )

    def _trusted(self) -> list[str]:
        workers = [each for each in self.client.nthreads() if each not in self._distrusted]
        if not workers:
            raise FarmError(
                "Every worker gave results that cannot be, so none is left.",
                hint="Look at their machines and versions of Assay; the same run goes on from here.",
            )
        return workers

    def _workers(self) -> dict[str, Any]:
        # Not scheduler_info: what that gives may be the client's memory, which has no workers in it.
        told = self.client.sync(self.client.scheduler.identity, n_workers=-1)
        workers: dict[str, Any] = told["workers"]
        return workers

    def _collect(self, jobs: Sequence[Job]) -> None:
        """Take what came back, or wait a moment for it."""
        if not self._something_came.wait(_POLL_SECONDS):
            self._check_cluster()
            return
        self._something_came.clear()
        for key, each in list(self._away.items()):
            # What was taken before may have sent this one elsewhere.
            if self._away.get(key) is each and each.future.done():
                self._alone_since = None
                del self._away[key]
                self._take(each, jobs)

    def _take(self, each: _Try, jobs: Sequence[Job]) -> None:
        """Judge one answer."""
        seconds = time.monotonic() - each.since
        try:
            worker = next(iter(self.client.who_has([each.future]).get(each.future.key, ())), None)
            answer = each.future.result(timeout=60)
        except (Exception, CancelledError) as error:
            # Whatever came of the worker or of the way there: Dask tells by many kinds of errors.
            reason = (str(error) or "no message").splitlines()[0][:200]
            self._again(each, f"it was lost ({type(error).__name__}: {reason})")
            return
        finally:
            each.future.release()
        outcome = _outcome(answer, each.job)
        if outcome is None:
            self._distrust(each, worker, "its answer is none")
        elif outcome.status != "done":
            final = outcome.status == "failed" and outcome.exit_code in _FINAL_CODES
            self._again(each, outcome.message, final=final, host=outcome.host)
        else:
            result = answer[1]
            problem = self._problem(each.job, result, jobs, seconds)
            if problem is not None:
                self._distrust(each, worker, problem)
                return
            self.journal.add(each.job, result, host=outcome.host, seconds=outcome.seconds)
            self._keep(each.job, result)
            done = Finished(
                job=each.job, status="done", attempts=each.attempt, seconds=outcome.seconds, host=outcome.host
            )
            self._end(done)

    def _problem(self, job: Job, result: Result, jobs: Sequence[Job], seconds: float) -> str | None:
        """Why ``result`` cannot be that of ``job``; None where nothing speaks against it."""
        before = _needed_by(job, jobs)
        try:
            kinds()[job.kind].check(job, result, self._results.get(before.key, {}) if before else {}, seconds)
        except NonsenseError as error:
            return error.message
        except AssayError as error:
            return f"it cannot be checked: {error.message}"
        return None

    def _keep(self, job: Job, result: Result) -> None:
        self._results[job.key] = result
        kinds()[job.kind].keep(job, result, self.folder)

    def _distrust(self, each: _Try, worker: str | None, problem: str) -> None:
        """Give the worker no more jobs, and this one to another."""
        who = worker or "(gone)"
        self.tell(f"{each.job.label}: the worker {who} gave nonsense: {problem}; it gets no more jobs")
        if worker is not None:
            self._distrusted.add(worker)
            processing = self.client.processing().items()
            kept = {key for where, keys in processing if where not in self._distrusted for key in keys}
            for other in list(self._away.values()):
                # What is there, or may go there, goes elsewhere; no attempt of theirs is lost.
                if not other.future.done() and other.future.key not in kept:
                    other.future.cancel(force=True)
                    self._send(other.job, other.needed, other.attempt)
        self._again(each, f"a worker gave nonsense: {problem}")

    def _again(self, each: _Try, message: str, *, final: bool = False, host: str = "") -> None:
        """Try the job once more, as long as it may be."""
        if final or each.attempt > self.settings.retries:
            self._end(
                Finished(job=each.job, status="failed", message=message, attempts=each.attempt, host=host)
            )
            return
        self.tell(f"{each.job.label}: {message}; trying again ({each.attempt} of {self.settings.retries})")
        self._send(each.job, each.needed, each.attempt + 1)

    def _end(self, finished: Finished) -> None:
        self._finished[finished.job.key] = finished
        tail = f": {finished.message}" if finished.message else ""
        self.tell(f"{finished.job.label}: {finished.status}{tail}")

    def _check_cluster(self) -> None:
        """Raise FarmError where no worker has been there for two minutes, or none that may be timed on."""
        if self.client.status != "running":
            raise FarmError(
                "The Dask scheduler went away.", hint="Start it and run the farm again: it goes on from here."
            )
        workers = {key: each for key, each in self._workers().items() if key not in self._distrusted}
        timing = any(kinds()[each.job.kind].times and each.job.device is None for each in self._away.values())
        able = [each for each in workers.values() if each.get("resources", {}).get(TIMING)]
        if (able if timing else workers) or (timing and workers and self._is_working()):
            self._alone_since = None
            return
        now = time.monotonic()
        self._alone_since = self._alone_since or now
        if now - self._alone_since > self.lost_seconds:
            which = f"with the resource {TIMING!r} " if timing and workers else ""
            raise FarmError(
                f"No worker {which}has been there for {self.lost_seconds:g} s.",
                hint=f"dask worker ADDRESS --nworkers 1 --nthreads 1 --resources {TIMING}=1",
            )

    def _is_working(self) -> bool:
        return any(not kinds()[each.job.kind].times for each in self._away.values())


def _needed_by(job: Job, jobs: Sequence[Job]) -> Job | None:
    """The job whose result ``job`` takes."""
    kind = kinds()[job.kind].needs
    if kind is None:
        return None
    fields = ("model", "target", "scheme", "profile")
    return next(
        other
        for other in jobs
        if other.kind == kind and all(getattr(other, name) == getattr(job, name) for name in fields)
    )


def _outcome(answer: Any, job: Job) -> Outcome | None:
    """The outcome that a worker tells of ``job``; None for what is none."""
    match answer:
        case (bytes(outcome), dict(files)) if all(
            isinstance(name, str) and isinstance(content, bytes) for name, content in files.items()
        ):
            try:
                found = msgspec.json.decode(outcome, type=Outcome)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return None
            return found if found.key == job.key else None
    return None
