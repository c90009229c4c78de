from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.ci.farm import jobs as farm_jobs
from assay.ci.farm.jobs import Job, jobs_of
from assay.ci.farm.spec import BenchSettings, FarmSpec, Matrix
from assay.errors import UnknownNameError, UsageError


def _spec(**changes: Any) -> FarmSpec:
    matrix = {"models": ("light-squeezenet",), "targets": ("x86-64-v3",)}
    return FarmSpec(matrix=Matrix(**(matrix | changes)))


def test_every_combination_is_a_job_and_builds_come_first() -> None:
    jobs = jobs_of(
        _spec(models=("light-squeezenet", "silero-vad"), targets=("x86-64-v2", "x86-64-v3"), threads=(1, 2))
    )
    assert [job.kind for job in jobs] == ["build"] * 4 + ["bench"] * 8
    assert len({job.key for job in jobs}) == 12
    assert jobs[0].label == "build light-squeezenet x86-64-v2 f32 release"
    assert jobs[-1].label == "bench silero-vad x86-64-v3 f32 release 2 threads"


def test_a_measurement_brings_its_build_and_a_search_stands_alone() -> None:
    assert [job.kind for job in jobs_of(_spec(jobs=("bench",)))] == ["build", "bench"]
    searches = jobs_of(_spec(jobs=("tune",), schemes=("f32", "int8"), profiles=("release", "debug")))
    assert [job.kind for job in searches] == ["tune"]


def test_what_is_named_twice_is_one_job() -> None:
    assert len(jobs_of(_spec(targets=("x86-64-v3", "haswell"), threads=(1, 1)))) == 2


def test_devices_measure_each() -> None:
    spec = msgspec.structs.replace(_spec(), bench=BenchSettings(devices=("one", "two")))
    assert [job.device for job in jobs_of(spec)] == [None, "one", "two"]


def test_a_key_is_of_everything_that_the_result_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs_of(_spec())[1]
    changes: list[dict[str, Any]] = [
        {"kind": "tune"}, {"model": "b"}, {"target": "b"}, {"scheme": "b"}, {"profile": "b"}, {"threads": 7},
        {"device": "b"}, {"options": {}}, {"content": "b"}, {"tools": "b"},
    ]  # fmt: skip
    assert {next(iter(each)) for each in changes} == set(Job.__struct_fields__)
    keys = {msgspec.structs.replace(job, **change).key for change in changes}
    assert len(keys) == len(changes)
    assert job.key not in keys
    again = msgspec.json.decode(msgspec.json.encode(job), type=Job)
    assert again.key == job.key
    monkeypatch.setattr(farm_jobs, "toolchain", lambda: "another")
    assert jobs_of(_spec())[1].key != job.key


def test_a_file_is_known_by_its_content(tmp_path: Path, product_file: str) -> None:
    first = jobs_of(_spec(models=(product_file,)))[0]
    assert first.content is not None
    Path(product_file).write_bytes(Path(product_file).read_bytes() + b"\x72\x00")  # an empty producer name
    assert jobs_of(_spec(models=(product_file,)))[0].key != first.key


@pytest.mark.parametrize(
    ("changes", "error", "hint"),
    [
        ({"models": ("light-squeezent",)}, UnknownNameError, "light-squeezenet"),
        ({"targets": ("haswel",)}, UnknownNameError, "haswell"),
        ({"schemes": ("int9",)}, (UnknownNameError, UsageError), ""),
        ({"profiles": ("releas",)}, UnknownNameError, "release"),
        ({"jobs": ("banch",)}, UnknownNameError, "bench"),
        ({"models": ("smollm2-135m",)}, UsageError, "assay bench llm"),
    ],
)
def test_what_no_job_could_be(changes: dict[str, Any], error: Any, hint: str) -> None:
    with pytest.raises(error) as caught:
        jobs_of(_spec(**changes))
    assert hint in (caught.value.hint or "")


def test_engines_are_known() -> None:
    with pytest.raises(UnknownNameError, match="engine"):
        jobs_of(msgspec.structs.replace(_spec(), bench=BenchSettings(engines=("onnxruntim",))))
