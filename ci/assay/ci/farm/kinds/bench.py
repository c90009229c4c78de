"""Measurements: records of an artifact beside its peers, as ``assay bench`` makes them."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from assay.ci.farm.kinds.build import ARTIFACT, artifact_of
from assay.ci.farm.kinds.kind import JobKind, NonsenseError, Result
from assay.errors import RecordError
from assay.results.record import Record, read_records, write_records
from assay.results.store_rows import unusable

if TYPE_CHECKING:
    from assay.ci.farm.jobs import Job

__all__ = ["KIND", "RECORDS"]

RECORDS = "records.json"
_CLOCK_SHARE, _CLOCK_SECONDS = 1.02, 1.0


def run_id_of(job: Job) -> str:
    """The identifier of the job's run: the same whenever it runs, so that there is one file of records."""
    return f"farm-{job.key[:16]}"


def _run(job: Job, folder: Path, cache: Path | None) -> None:
    from assay.benchmarks.harness import bench
    from assay.benchmarks.remote import RemotePlace
    from assay.compile.cache import BuildCache
    from assay.compile.origin import model_of
    from assay.models.registry import find_model
    from assay.progress import SilentProgress
    from assay.runtime.artifact import open_artifact
    from assay.runtime.remote.names import find_device, open_device

    artifact = folder / ARTIFACT
    manifest = open_artifact(artifact).manifest
    spec = find_model(job.model)
    canonical = model_of(artifact, manifest, spec, BuildCache(cache), SilentProgress())
    device = open_device(find_device(job.device), wait=3600.0) if job.device else None
    try:
        place = RemotePlace(device) if device is not None else None
        engines = list(job.options["engines"])
        if place is not None:
            reference = place.describe(spec.name, canonical=True).engines
            engines = [name for name in engines if name in reference and not reference[name].unavailable]
        records = bench(
            canonical.spec, artifact, canonical, run_id=run_id_of(job), engines_to_run=engines,
            threads=job.threads, rounds=job.options["rounds"], seconds_per_round=job.options["seconds"],
            seed=job.options["seed"], place=place,
        )  # fmt: skip
    finally:
        if device is not None:
            device.close()
    write_records(folder, records).rename(folder / RECORDS)


def _check(job: Job, result: Result, needed: Result, seconds: float) -> None:
    records = _records(result)
    manifest, digest = artifact_of(needed)
    asked = set(job.options["engines"])
    timed = {record.engine for record in records if record.metric == "latency"}
    if "assay" not in timed and "assay" in asked:
        raise NonsenseError("it has no latency of the artifact")
    if job.device is None and timed != asked:
        raise NonsenseError(f"it has latencies of {sorted(timed)}, where {sorted(asked)} were asked for")
    total = 0.0
    for record in records:
        name = f"{record.metric} of {record.engine}"
        expected = (run_id_of(job), manifest.model.name, job.target, manifest.scheme, job.profile)
        found = (record.run_id, record.model, record.target, record.scheme, record.profile)
        if found != expected or record.artifact != digest:
            raise NonsenseError(f"{name} is of {found}, {record.artifact}, not of {expected}, {digest}")
        if record.threads != job.threads or record.engine not in asked:
            raise NonsenseError(f"{name} is of {record.threads} threads, {job.threads} were asked for")
        problem = unusable(record)
        if problem is not None:
            raise NonsenseError(f"{name} means nothing: {problem}")
        if record.metric == "latency":
            if len(record.samples_per_round) != job.options["rounds"]:
                raise NonsenseError(f"{name} has {len(record.samples_per_round)} rounds")
            total += math.fsum(record.samples)
    if total > seconds * _CLOCK_SHARE + _CLOCK_SECONDS:
        raise NonsenseError(f"it has {total:.3g} s of samples, and took {seconds:.3g} s")


def _records(result: Result) -> list[Record]:
    with tempfile.TemporaryDirectory(prefix="assay-farm-") as name:
        path = Path(name) / RECORDS
        path.write_bytes(result.get(RECORDS, b""))
        try:
            return read_records(path)
        except RecordError as error:
            reason = error.message.partition(" is damaged: ")[2]
            raise NonsenseError(f"its records are none: {reason}") from error


def _keep(job: Job, result: Result, folder: Path) -> None:
    write_records(folder / "runs", _records(result))


KIND = JobKind(name="bench", times=True, needs="build", run=_run, check=_check, keep=_keep)
