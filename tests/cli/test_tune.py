from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import assay.compile.tune.session as session
from assay.compile.schedules.choices import Choice, packed_matmul_workload
from assay.compile.tune.journal import Trial
from assay.compile.tune.session import TunedModel
from assay.compile.tune.tuner import TuneResult

WORKLOAD = packed_matmul_workload(8, 16, 32)
TRIAL = Trial(
    workload=WORKLOAD.key, threads=1, width=None, choice={"rows": 5}, status="ok", ratio=1.25, confirmed=True,
    cpu="cpu", time="2026-01-01T00:00:00Z", versions={},
)  # fmt: skip


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the search; what it was asked."""
    asked: dict[str, Any] = {}

    def tune_model(spec: Any, records: Path, **options: Any) -> TunedModel:
        asked.update(options, model=spec.name)
        result = TuneResult(
            choices={WORKLOAD.key: Choice(rows=5)}, confirmed=(TRIAL,), tried=9, rejected=1, exhausted=False
        )
        return TunedModel(result=result, workloads=3, forms=(), records=records / "x.json")

    monkeypatch.setattr(session, "tune_model", tune_model)
    return asked


def test_what_was_found_is_told(cli: Any, tuned: dict[str, Any], tmp_path: Path) -> None:
    result = cli("tune", "light-squeezenet", "--budget", "5", "-o", tmp_path)
    assert result.stdout.strip() == str(tmp_path / "x.json")
    assert "1.25 times as fast" in result.stderr
    assert "9 candidates tried for 3 workloads, 1 rejected, 1 faster" in result.stderr
    assert "run it again" in result.stderr
    assert tuned["budget"] == 5
    assert tuned["model"] == "light-squeezenet"


def test_json(cli: Any, tuned: dict[str, Any], tmp_path: Path) -> None:
    found = cli.json("tune", "minilm", "--size", "sequence=32", "-o", tmp_path)
    assert found["faster"] == [{"workload": WORKLOAD.key, "choice": {"rows": 5}, "ratio": 1.25}]
    assert found["finished"] is False
    assert tuned["sizes"] == {"sequence": 32}


def test_an_unknown_strategy_is_told_first(cli: Any, tuned: dict[str, Any]) -> None:
    error = cli.error("tune", "light-squeezenet", "--strategy", "gird", code=3)
    assert error["hint"] == "Did you mean grid?"
    assert not tuned
