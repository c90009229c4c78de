from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.compile.pgo.data import (
    KernelSample,
    ModelDigest,
    ProfileData,
    RunSample,
    read_profile,
    write_profile,
)


@pytest.fixture
def profile(tmp_path: Path) -> Any:
    def write(name: str, model: str = "0", calls: int = 3) -> Path:
        place: dict[str, Any] = {"machine": "m", "target": "t", "threads": 1, "sizes": {"n": 8}}
        path = tmp_path / name
        write_profile(
            path,
            ProfileData(
                model=ModelDigest(name=f"model{model}", canonical_digest="sha256:" + model * 64),
                runs=(RunSample(**place, runs=calls, seconds=1.0),),
                kernels=(
                    KernelSample(
                        **place, kernel="hot", workload=None, shapes=((8,),), calls=calls, seconds=0.5
                    ),
                ),
            ),
        )
        return path

    return write


def test_files_are_merged(cli: Any, profile: Any, tmp_path: Path) -> None:
    merged = tmp_path / "merged.json"
    result = cli("profdata", profile("a.json"), profile("b.json", calls=4), "-o", merged)
    assert result.stdout.strip() == str(merged)
    assert read_profile(merged).kernels[0].calls == 7


def test_a_profile_is_shown(cli: Any, profile: Any) -> None:
    shown = cli("profdata", profile("a.json")).stdout
    assert "hot" in shown
    assert "n=8" in shown
    assert cli.json("profdata", profile("a.json"))["kernels"][0]["kernel"] == "hot"


def test_profiles_of_different_models_have_their_exit_code(cli: Any, profile: Any, tmp_path: Path) -> None:
    merged = tmp_path / "merged.json"
    error = cli.error("profdata", profile("a.json"), profile("b.json", model="1"), "-o", merged, code=17)
    assert "different models" in error["message"]
    assert not merged.exists()


@pytest.mark.parametrize("content", ["", "{", json.dumps({"schema_version": 1})])
def test_damaged_profiles_have_their_exit_code(cli: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    assert "damaged or truncated" in cli.error("profdata", tmp_path / "p.json", code=17)["message"]


def test_a_workload_needs_an_artifact(cli: Any, profile: Any, tmp_path: Path) -> None:
    cli.error("profdata", profile("a.json"), "--workload", tmp_path, code=2)


def test_a_workload_needs_the_profile_pgo(cli: Any, tmp_path: Path) -> None:
    error = cli.error("build", "light-squeezenet", "--workload", tmp_path, code=2)
    assert "--profile pgo" in error["message"]
