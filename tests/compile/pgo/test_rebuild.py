from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import assay.compile.pgo.candidates as candidates
from assay.compile.build import BuildResult, build_artifact
from assay.compile.pgo.compare import Comparison
from assay.compile.pgo.data import read_profile, write_profile
from assay.compile.pgo.rebuild import Guide
from assay.compile.pgo.report import PROFILE_FILE, REPORT_FILE, decode_report
from assay.compile.pgo.workload import WorkloadCase
from assay.compile.verify import reference_outputs
from assay.errors import ProfileDataError, UsageError, WorkloadError
from assay.models.registry import find_model
from assay.runtime import load
from assay.runtime.artifact import open_artifact
from assay.runtime.recording import record_inputs

SIZES = (3, 7)
Build = Callable[..., BuildResult]


def rows(count: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(count).standard_normal((count, 20), dtype=np.float32)}


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    for count in SIZES:
        record_inputs(tmp_path / "workload", rows(count))
    return tmp_path / "workload"


@pytest.fixture
def build(needs_avx2: None, cache: Path, perceptron_file: Path) -> Build:
    def run(**guide: Any) -> BuildResult:
        options: dict[str, Any] = {"budget": 0, "threads": 1, **guide}
        spec = find_model(str(perceptron_file))
        return build_artifact(spec, target="x86-64-v3", profile="pgo", cache=cache, guide=Guide(**options))

    return run


Ratio = Callable[[Path, Path, WorkloadCase], float]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ratio], None]:
    """Let a rule stand for the comparison of two artifacts: what is timed differs from run to run."""

    def replace(rule: Ratio) -> None:
        def compare(
            first: Path,
            second: Path,
            cases: Sequence[WorkloadCase],
            threads: Sequence[int],
            *_: Any,
            **__: Any,
        ) -> list[Comparison]:
            found = []
            for case in cases:
                ratio = rule(first, second, case)
                interval = {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01}
                found.append(
                    Comparison(
                        sizes=case.sizes, threads=1, count=case.count, first=ratio, second=1.0, **interval
                    )
                )
            return found

        monkeypatch.setattr(candidates, "compare_artifacts", compare)

    return replace


def agree(result: BuildResult, model: onnx.ModelProto, count: int) -> None:
    inputs = rows(count)
    (expected,) = reference_outputs(model.SerializeToString(), [inputs])
    outputs = load(result.path, threads=1).run(inputs)
    for name, wanted in expected.items():
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-4, atol=1e-5)


def test_sizes_whose_code_is_faster_get_it(
    build: Build, perceptron: onnx.ModelProto, workload: Path, measured: Callable[[Ratio], None]
) -> None:
    measured(lambda first, second, case: 1.2 if case.sizes["batch"] == 7 else 1.0)
    result = build(workload=workload)
    (level,) = result.manifest.levels
    assert result.manifest.profile == "pgo"
    assert [special.sizes for special in level.specializations] == [{"batch": 7}]
    assert {7} <= {case.sizes["batch"] for case in level.verification.cases}
    for count in (7, 3, 1):
        agree(result, perceptron, count)
    # One file of weights serves both libraries.
    assert level.specializations[0].entry.weights == level.entry.weights
    report = decode_report((result.path / REPORT_FILE).read_bytes())
    assert report.kept == ("code for batch=7",)
    assert report.dropped == ("code for batch=3",)
    assert result.notes[0] == "Kept code for batch=7."
    profile = read_profile(result.path / PROFILE_FILE)
    assert {run.sizes["batch"] for run in profile.runs} == set(SIZES)
    assert any(sample.workload for sample in profile.kernels)
    again = build(workload=workload)
    assert again.cached
    assert again.notes == result.notes


def test_what_is_not_faster_leaves_the_code_of_release(
    build: Build, perceptron_file: Path, workload: Path, cache: Path, measured: Callable[[Ratio], None]
) -> None:
    measured(lambda first, second, case: 1.0)
    result = build(workload=workload, threads=None)
    release = build_artifact(find_model(str(perceptron_file)), target="x86-64-v3", cache=cache)
    assert result.manifest.levels[0].specializations == ()
    assert "its code is kept" in result.notes[0]
    for name in ("lib/model.so", "weights.safetensors"):
        assert (result.path / name).read_bytes() == (release.path / name).read_bytes()


@pytest.mark.slow
def test_a_whole_that_is_slower_than_release_is_dropped(
    build: Build, workload: Path, measured: Callable[[Ratio], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each part seemed faster; the artifact beside release is not.
    def ratio(first: Path, second: Path, case: WorkloadCase) -> float:
        return 0.9 if (first / "manifest.json").is_file() and first.parent.name == "artifacts" else 1.3

    measured(ratio)
    result = build(workload=workload, budget=0.0, strategy="grid")
    report = decode_report((result.path / REPORT_FILE).read_bytes())
    assert report.kept == ()
    assert "code for batch=7, in the whole" in report.dropped
    assert result.manifest.levels[0].specializations == ()


def test_without_a_workload_it_is_the_release_build_and_says_so(
    build: Build, perceptron_file: Path, cache: Path
) -> None:
    result = build()
    release = build_artifact(find_model(str(perceptron_file)), target="x86-64-v3", cache=cache)
    assert result.manifest.profile == "release"
    assert "no workload, so this is the release build" in result.notes[0]
    assert (result.path / "lib/model.so").read_bytes() == (release.path / "lib/model.so").read_bytes()


@pytest.mark.slow
def test_profile_data_of_another_machine_stand_for_a_workload(
    build: Build, workload: Path, tmp_path: Path, measured: Callable[[Ratio], None]
) -> None:
    measured(lambda first, second, case: 1.2)
    first = build(workload=workload)
    profile = tmp_path / "p.json"
    write_profile(profile, read_profile(first.path / PROFILE_FILE))
    second = build(profiles=(profile,))
    assert {s.sizes["batch"] for s in second.manifest.levels[0].specializations} == set(SIZES)
    open_artifact(second.path)


def test_profile_data_of_another_model_are_refused(build: Build, tmp_path: Path) -> None:
    import msgspec

    from assay.compile.pgo.data import ModelDigest, ProfileData

    other = ProfileData(
        model=ModelDigest(name="other", canonical_digest="sha256:" + "0" * 64), runs=(), kernels=()
    )
    write_profile(tmp_path / "p.json", msgspec.structs.replace(other))
    with pytest.raises(ProfileDataError, match=r"of another model \(other\)"):
        build(profiles=(tmp_path / "p.json",))


def test_a_workload_that_does_not_fit_is_refused_before_anything_is_built(
    build: Build, tmp_path: Path
) -> None:
    record_inputs(tmp_path / "w", {"x": np.ones((2, 21), np.float32)})
    with pytest.raises(WorkloadError, match="size 21, expected 20"):
        build(workload=tmp_path / "w")


def test_several_targets_are_refused(perceptron_file: Path, cache: Path, needs_avx2: None) -> None:
    with pytest.raises(UsageError, match="for one target"):
        build_artifact(
            find_model(str(perceptron_file)), target="x86-64-v2,x86-64-v3", profile="pgo", cache=cache
        )


@pytest.mark.slow
def test_a_build_that_really_measures_never_breaks_the_model(
    build: Build, perceptron: onnx.ModelProto, workload: Path
) -> None:
    result = build(workload=workload, budget=10, threads=2)
    for count in (*SIZES, 1, 9):
        agree(result, perceptron, count)
    report = decode_report((result.path / REPORT_FILE).read_bytes())
    assert not any(each.high < 1 / 1.01 for each in report.beside_release)
