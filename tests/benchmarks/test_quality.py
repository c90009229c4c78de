from __future__ import annotations

import math

import msgspec
import pytest

from assay.benchmarks.job import Report
from assay.benchmarks.measurement import Measurement, RecordMaker, Subject, make_records
from assay.benchmarks.peers import ModelFiles, engines
from assay.benchmarks.quality import quality_of
from assay.results.record import MAY_BE_ZERO
from assay.results.store_rows import unusable
from assay.runtime.artifact import open_artifact
from assay.runtime.levels import choose_level
from assay.runtime.manifest import Level, VerifiedCase


def make_case(**changes: float) -> VerifiedCase:
    fields = {
        "max_absolute_error": 0.001,
        "max_relative_error": 0.01,
        "cosine_similarity": 0.999,
        "absolute_tolerance": 0.01,
        "relative_tolerance": 0.0,
    }
    return VerifiedCase(sizes={}, output="y", **{**fields, **changes})


@pytest.fixture
def level(artifact) -> Level:
    return choose_level(open_artifact(artifact, verify=False).manifest)


def with_cases(level: Level, *cases: VerifiedCase) -> Level:
    verification = msgspec.structs.replace(level.verification, cases=cases)
    return msgspec.structs.replace(level, verification=verification)


def test_the_worst_of_all_outputs_counts(level):
    worse = make_case(max_absolute_error=0.004, cosine_similarity=0.9)
    found = quality_of(with_cases(level, make_case(), worse, make_case(max_relative_error=0.5)))
    assert found == pytest.approx(
        {"error": 0.4, "absolute_error": 0.004, "relative_error": 0.5, "cosine_distance": 0.1}
    )


def test_what_was_never_compared_has_no_quality(level):
    assert quality_of(with_cases(level)) == {}


def test_what_is_no_number_is_left_out(level):
    case = make_case(
        max_absolute_error=0.0,
        max_relative_error=math.inf,
        cosine_similarity=1.0 + 1e-9,
        absolute_tolerance=0.0,
    )
    assert quality_of(with_cases(level, case)) == {"absolute_error": 0.0, "cosine_distance": 0.0}


def test_records_name_what_they_were_compared_with(canonical, artifact, level):
    manifest = open_artifact(artifact, verify=False).manifest
    manifest = msgspec.structs.replace(manifest, levels=(with_cases(level, make_case()),))
    subject = Subject(
        run_id="run-1", model=canonical.spec, manifest=manifest, digest="sha256:0", sizes={}, threads=1
    )
    ours = engines()["assay"]
    records = RecordMaker(subject).quality(ours, "1.0")
    assert {record.metric: record.value for record in records} == pytest.approx(
        {"error": 0.1, "absolute_error": 0.001, "relative_error": 0.01, "cosine_distance": 0.001}
    )
    assert {(record.unit, record.note) for record in records} == {
        ("1", f"against {level.verification.reference}")
    }
    reports = (
        Report(load_time=0.1, first_run_time=0.1, calls_per_sample=1, samples=(0.1,), peak_memory=None),
    )
    measured = [Measurement(engine=engines()[name], reports=reports) for name in ("assay", "onnxruntime")]
    files = ModelFiles(name="tiny", artifact=artifact, canonical=canonical.path)
    found = make_records(subject, measured, files=files)
    assert {record.engine for record in found if record.metric in MAY_BE_ZERO} == {"assay"}
    assert all(unusable(record) is None for record in found)
