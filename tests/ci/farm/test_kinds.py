from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.ci.farm.jobs import Job
from assay.ci.farm.kinds import NonsenseError, kinds
from assay.ci.farm.kinds import bench as bench_kind
from assay.ci.farm.kinds.bench import run_id_of
from assay.ci.farm.kinds.build import ARTIFACT, artifact_of
from assay.compile.records import Origin, RecordFile, write_records
from assay.compile.records import Record as TuningRecord
from assay.results.record import Machine, Record, encode_records, read_records
from assay.runtime.artifact import write_artifact
from assay.runtime.manifest import (
    Entry,
    Execution,
    Input,
    Level,
    Manifest,
    ModelInfo,
    Output,
    TargetInfo,
    Verification,
    VerifiedCase,
)

CASE = VerifiedCase(
    sizes={}, output="y", max_absolute_error=1e-6, max_relative_error=1e-5, cosine_similarity=1.0,
    absolute_tolerance=1e-4, relative_tolerance=1e-3,
)  # fmt: skip
MACHINE = Machine(
    cpu="C", architecture="x86_64", features=(), cores=1, cpus=1, memory_bytes=1, system="Linux",
    governor=None, virtualisation=None,
)  # fmt: skip


def _manifest(**changes: Any) -> Manifest:
    return msgspec.structs.replace(
        Manifest(
            assay_version="0",
            model=ModelInfo(
                name="light-squeezenet",
                description="A test.",
                licence="MIT",
                weights="random",
                source_digest="sha256:" + "0" * 64,
                canonical_digest="sha256:" + "1" * 64,
            ),
            scheme="f32",
            profile="release",
            inputs=(Input(name="x", dtype="float32", shape=(4,)),),
            outputs=(Output(name="y", dtype="float32", shape=(4,)),),
            weights=(),
            levels=(
                Level(
                    target=TargetInfo(name="x86-64-v3", triple="x86_64-linux-gnu", cpu="c", features=()),
                    executed=Execution.NATIVE,
                    entry=Entry(function="main", library="lib/model.so"),
                    verification=Verification(reference="onnxruntime", cases=(CASE,)),
                ),
            ),
            tvm_runtime="lib/libtvm_runtime.so",
            tools={},
        ),
        **changes,
    )


@pytest.fixture
def make_result(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    def make(**changes: Any) -> dict[str, bytes]:
        files: dict[str, bytes | Path] = {"lib/model.so": b"none", "lib/libtvm_runtime.so": b"none"}
        path = write_artifact(tmp_path / "made.assay", _manifest(**changes), files, packed=True)
        return {ARTIFACT: path.read_bytes()}

    return make


@pytest.fixture
def build(job: Job) -> Job:
    return msgspec.structs.replace(job, model="light-squeezenet")


@pytest.fixture
def bench(build: Job) -> Job:
    options = {"engines": ["assay", "onnxruntime"], "rounds": 2, "seconds": 0.1, "seed": 0}
    return msgspec.structs.replace(build, kind="bench", options=options)


def _check(job: Job, result: Any, needed: Any = None, seconds: float = 60.0) -> None:
    kinds()[job.kind].check(job, result, needed or {}, seconds)


def test_a_build_that_is_whole(build: Job, make_result: Any, tmp_path: Path) -> None:
    result = make_result()
    _check(build, result)
    for _ in range(2):
        kinds()["build"].keep(build, result, tmp_path / "farm")
    (kept,) = (tmp_path / "farm/artifacts").iterdir()
    assert kept.name == "light-squeezenet-x86-64-v3-f32-release.assay"
    assert kept.read_bytes() == result[ARTIFACT]


def test_a_build_that_was_changed_anywhere(build: Job, make_result: Any) -> None:
    content = make_result()[ARTIFACT]
    for position in range(0, len(content), 101):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        with pytest.raises(NonsenseError, match="its artifact is none"):
            _check(build, {ARTIFACT: bytes(changed)})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense" * 100])
def test_what_is_no_artifact(build: Job, content: bytes) -> None:
    with pytest.raises(NonsenseError):
        _check(build, {ARTIFACT: content})
    with pytest.raises(NonsenseError, match="there is no artifact in it"):
        _check(build, {"other": content})


@pytest.mark.parametrize("field", ["model", "target", "scheme", "profile"])
def test_a_build_of_something_else(build: Job, make_result: Any, field: str) -> None:
    other = {"model": "silero-vad", "target": "x86-64-v2", "scheme": "int8", "profile": "debug"}[field]
    with pytest.raises(NonsenseError, match="was asked for"):
        _check(msgspec.structs.replace(build, **{field: other}), make_result())


def test_a_build_that_was_compared_with_nothing_or_badly(build: Job, make_result: Any) -> None:
    (level,) = _manifest().levels

    def with_cases(*cases: VerifiedCase) -> dict[str, bytes]:
        verification = msgspec.structs.replace(level.verification, cases=cases)
        result: dict[str, bytes] = make_result(
            levels=(msgspec.structs.replace(level, verification=verification),)
        )
        return result

    with pytest.raises(NonsenseError, match="compared with nothing"):
        _check(build, with_cases())
    with pytest.raises(NonsenseError, match="the errors of y are"):
        _check(build, with_cases(msgspec.structs.replace(CASE, max_absolute_error=-1.0)))


def _records(job: Job, needed: dict[str, bytes]) -> list[Record]:
    manifest, digest = artifact_of(needed)
    return [
        Record(
            run_id=run_id_of(job), time="2026-01-01T00:00:00Z", model=manifest.model.name, weights="random",
            sizes={}, target="x86-64-v3", scheme="f32", profile="release", artifact=digest, engine=engine,
            threads=1, metric="latency", unit="s", value=2.0, interval=None, samples=(1.0, 1.0, 3.0),
            samples_per_round=(2, 1), note="", machine=MACHINE, versions={}, commit=None, dirty=None,
        )
        for engine in ("assay", "onnxruntime")
    ]  # fmt: skip


def _encoded(records: list[Record]) -> dict[str, bytes]:
    content = msgspec.json.encode({"schema_version": records[0].schema_version, "records": records})
    return {"records.json": content}


def test_records_of_the_artifact_that_was_given(bench: Job, make_result: Any, tmp_path: Path) -> None:
    needed = make_result()
    records = _records(bench, needed)
    _check(bench, _encoded(records), needed)
    for _ in range(2):
        kinds()["bench"].keep(bench, _encoded(records), tmp_path / "farm")
    (kept,) = (tmp_path / "farm/runs").iterdir()
    assert encode_records(read_records(kept)) == encode_records(records)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": (1.0, -1.0, 3.0)}, "means nothing: it has the value -1"),
        ({"samples": (1.0, 0.0, 3.0)}, "means nothing: it has the value 0"),
        ({"value": 1.5}, "not that of its samples"),
        ({"samples": (100.0, 100.0, 300.0), "value": 200.0}, "505 s of samples, and took"),
        ({"samples": (3.0,), "samples_per_round": (1,), "value": 3.0}, "has 1 rounds"),
        ({"model": "silero-vad"}, "is of"),
        ({"target": "x86-64-v4"}, "is of"),
        ({"scheme": "int8"}, "is of"),
        ({"profile": "pgo"}, "is of"),
        ({"artifact": "sha256:" + "0" * 64}, "is of"),
        ({"run_id": "another"}, "is of"),
        ({"threads": 2}, "2 threads, 1 were asked for"),
        ({"engine": "torch"}, "it has latencies of|it has no latency"),
        ({"unit": "bytes"}, "its records are none"),
        ({"samples_per_round": (5,)}, "its records are none"),
    ],
)
def test_records_that_cannot_be(bench: Job, make_result: Any, changes: dict[str, Any], message: str) -> None:
    needed = make_result()
    ours, peer = _records(bench, needed)
    with pytest.raises(NonsenseError, match=message):
        _check(bench, _encoded([msgspec.structs.replace(ours, **changes), peer]), needed)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema_version": 99}', b"\xff"])
def test_what_is_no_file_of_records(bench: Job, make_result: Any, content: bytes) -> None:
    with pytest.raises(NonsenseError):
        _check(bench, {"records.json": content}, make_result())


def test_an_engine_that_is_missing(bench: Job, make_result: Any) -> None:
    needed = make_result()
    with pytest.raises(NonsenseError, match="were asked for"):
        _check(bench, _encoded(_records(bench, needed)[:1]), needed)
    # A device of another machine need not have the peers.
    _check(msgspec.structs.replace(bench, device="lab"), _with_run(bench, needed), needed)


def _with_run(bench: Job, needed: dict[str, bytes]) -> dict[str, bytes]:
    there = msgspec.structs.replace(bench, device="lab")
    return _encoded(_records(there, needed)[:1])


def _tuning(tmp_path: Path, **changes: Any) -> dict[str, bytes]:
    origin = Origin(cpu="C", time="2026-01-01T00:00:00Z", versions={})
    fields = {
        "workload": "packed_matmul float32 rows=4 cols=16 depth=8", "choice": {}, "threads": 1,
        "seconds": 1.0, "baseline_seconds": 1.5, "ratio": 1.5, "measured": origin,
    }  # fmt: skip
    record = TuningRecord(**(fields | changes))
    path = tmp_path / "tuning.json"
    write_records(path, RecordFile(target="x86-64-v3", microarchitecture="znver3", records=(record,)))
    return {"tuning.json": path.read_bytes()}


@pytest.fixture
def tune(build: Job) -> Job:
    return msgspec.structs.replace(build, kind="tune", options={"budget": 1.0, "strategy": "table"})


def test_searches_that_found_nothing_or_nonsense(tune: Job) -> None:
    _check(tune, {"nothing": b"7 candidates, none faster\n"})
    for content in (b"", b"{}", b"\xff"):
        with pytest.raises(NonsenseError, match="its tuning records are none"):
            _check(tune, {"tuning.json": content})


def test_tuning_records(tune: Job, tmp_path: Path) -> None:
    result = _tuning(tmp_path)
    _check(tune, result)
    for _ in range(2):
        kinds()["tune"].keep(tune, result, tmp_path / "farm")
    (kept,) = (tmp_path / "farm/records/x86-64-v3").iterdir()
    assert kept.read_bytes() == result["tuning.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": -1.0}, "the times of packed_matmul"),
        ({"baseline_seconds": 0.0}, "the times of packed_matmul"),
        ({"ratio": 0.5}, "the times of packed_matmul"),
        ({"threads": 2}, "measured with 2 threads"),
        ({"workload": "nonsense"}, "its tuning records are none"),
    ],
)
def test_tuning_records_that_cannot_be(tune: Job, tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(NonsenseError, match=message):
        _check(tune, _tuning(tmp_path, **changes))


def test_tuning_records_for_another_target(tune: Job, tmp_path: Path) -> None:
    with pytest.raises(NonsenseError, match="it is for x86-64-v3"):
        _check(msgspec.structs.replace(tune, target="x86-64-v2"), _tuning(tmp_path))


def test_kinds_say_what_they_need() -> None:
    assert {name: (kind.times, kind.needs) for name, kind in kinds().items()} == {
        "build": (False, None),
        "tune": (True, None),
        "bench": (True, "build"),
    }
    assert bench_kind.KIND is kinds()["bench"]
