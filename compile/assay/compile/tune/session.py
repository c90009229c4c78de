"""Tune a model: its workloads, the search, and the records that come of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.compile.cache import BuildCache, default_cache_folder, installed_versions
from assay.compile.lower import kernel_workloads, unscheduled_functions
from assay.compile.profiles import profiles
from assay.compile.records import (
    FormRecord,
    Origin,
    Record,
    RecordFile,
    read_records,
    record_path,
    write_records,
)
from assay.compile.schedules.choices import SCHEDULE_VERSION
from assay.compile.schedules.forms import form_key
from assay.compile.targets import find_target
from assay.compile.targets.microarchitecture import cpu_model, microarchitecture
from assay.compile.targets.target import Target
from assay.compile.tune.journal import Trial, now
from assay.compile.tune.metaschedule import search_apart
from assay.compile.tune.remote import RemoteMeasurer, TuningDevice
from assay.compile.tune.tuner import Question, TuneResult, tune
from assay.errors import CpuFeatureError
from assay.models.export import CanonicalModel
from assay.models.spec import ModelSpec
from assay.progress import Progress, SilentProgress
from assay.runtime.cpu import check_features, check_triple

__all__ = ["TunedModel", "tune_model"]


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """What a search found, of how many workloads, and the record file that holds it (None: nothing).

    ``forms`` are those of kernels that no schedule matches.
    """

    result: TuneResult
    workloads: int
    forms: tuple[FormRecord, ...]
    records: Path | None


def tune_model(
    spec: ModelSpec,
    records: Path,
    *,
    target: str = "native",
    budget: float,
    strategy: str = "table",
    threads: int = 1,
    sizes: Mapping[str, int] | None = None,
    cache: Path | None = None,
    device: TuningDevice | None = None,
    progress: Progress | None = None,
) -> TunedModel:
    """Search the workloads of ``spec``, and add what is faster to the folder ``records``.

    Candidates are measured on this machine, or on ``device``; kernels that no schedule matches here alone.

    The journal lies in the build cache, so that a search that was killed goes on. ``sizes`` are those to tune
    for, where not the defaults. Raises CpuFeatureError where that machine cannot run the target's code or its
    micro-architecture is not known, RemoteDeviceError, and what ``tune`` raises.
    """
    progress = progress or SilentProgress()
    chosen = find_target(target)
    cpu = device.session.cpu if device else None
    check_triple(chosen.triple, cpu)
    check_features(chosen.features, cpu)
    architecture = device.microarchitecture if device else microarchitecture()
    model = device.cpu_model if device else cpu_model()
    if architecture is None:
        raise CpuFeatureError(
            f"The micro-architecture of that CPU ({model}) has no name here, and records go by it.",
            hint="Add it to assay.compile.targets.microarchitecture.",
        )
    deadline = time.monotonic() + budget
    canonical = BuildCache(cache).canonical(spec, progress)
    (named,) = kernel_workloads(canonical, chosen, profiles()["release"], progress, sizes=[sizes or {}])
    weights: dict[str, Question] = {}
    for workload in named.values():
        earlier = weights.get(workload.key)
        more = earlier.weight if earlier else 0.0
        weights[workload.key] = Question(workload=workload, weight=more + workload.operations)
    result = tune(
        list(weights.values()),
        chosen,
        budget=budget,
        folder=(cache or default_cache_folder()) / "tuning",
        threads=threads,
        strategy=strategy,
        measurer=RemoteMeasurer(device.session, chosen) if device else None,
        cpu=model,
        progress=progress,
    )
    path = record_path(records, chosen.name, architecture)
    forms = () if device else _search_forms(canonical, chosen, path, deadline, progress)
    if result.confirmed or forms:
        _add_records(path, chosen.name, architecture, result, forms)
    return TunedModel(
        result=result,
        workloads=len(weights),
        forms=forms,
        records=path if result.confirmed or forms else None,
    )


def _search_forms(
    canonical: CanonicalModel, target: Target, path: Path, deadline: float, progress: Progress
) -> tuple[FormRecord, ...]:
    """MetaSchedule's forms of the kernels that no schedule matches, in the time that is left."""
    functions = unscheduled_functions(canonical, target, profiles()["release"], progress)
    known = {record.key for record in read_records(path).forms} if path.is_file() else set()
    left = {name: function for name, function in functions.items() if form_key(function) not in known}
    found = []
    for number, (name, function) in enumerate(sorted(left.items())):
        seconds = (deadline - time.monotonic()) / (len(left) - number)
        if seconds <= 0:
            break
        with progress.step(f"search {name} with MetaSchedule"):
            form = search_apart(function, target, seconds=seconds)
        if form is not None:
            text, gain = form
            origin = Origin(cpu=cpu_model(), time=now(), versions=_versions())
            found.append(
                FormRecord(
                    kernel=name, key=form_key(function), form=text, ratio=round(gain, 4), measured=origin
                )
            )
    return tuple(found)


def _add_records(
    path: Path, target: str, architecture: str, result: TuneResult, forms: tuple[FormRecord, ...]
) -> None:
    """Put what was confirmed into the file, in place of earlier records of the same workloads."""
    file = read_records(path) if path.is_file() else None
    earlier = () if file is None else file.records
    kept = {} if file is None else {form.key: form for form in file.forms}
    current = {
        (record.workload, record.threads): record
        for record in earlier
        if record.schedule_version == SCHEDULE_VERSION
    }
    for trial in result.confirmed:
        current[trial.workload, trial.threads] = _record(trial)
    write_records(
        path,
        RecordFile(
            target=target,
            microarchitecture=architecture,
            records=tuple(current.values()),
            forms=tuple({**kept, **{form.key: form for form in forms}}.values()),
        ),
    )


def _record(trial: Trial) -> Record:
    return Record(
        workload=trial.workload,
        choice=trial.choice,
        threads=trial.threads,
        seconds=trial.seconds,
        baseline_seconds=trial.baseline_seconds,
        ratio=round(trial.ratio, 4),
        measured=Origin(cpu=trial.cpu, time=trial.time, versions=_versions()),
    )


def _versions() -> dict[str, str]:
    return installed_versions(("assay", "apache-tvm"))
