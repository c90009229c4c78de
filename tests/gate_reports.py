"""Fixtures that make reports of the gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from assay.ci.gate.report import GateReport, Row


@pytest.fixture
def make_row() -> Callable[..., Row]:
    from assay.ci.gate.decision import Verdict
    from assay.ci.gate.report import Row

    def make(verdict: str = "unchanged", **changes: Any) -> Row:
        fields: dict[str, Any] = {
            "benchmark": "net/threads=1",
            "model": "net",
            "threads": 1,
            "metric": "latency",
            "unit": "s",
            "verdict": Verdict(verdict),
            "fails": verdict == "regression",
            "undecided": verdict == "inconclusive",
            "threshold": 0.03,
            "base": 0.001,
            "head": 0.0011,
            "ratio": 1.1,
            "interval": (1.05, 1.15),
            "confidence": 0.99,
            "rounds": 10,
            "reason": "Because.",
        }
        return Row(**{**fields, **changes})

    return make


@pytest.fixture
def make_report() -> Callable[..., GateReport]:
    from assay.ci.gate.report import Finding, GateReport, GateSettings, SideInfo, status_of
    from assay.results.record import Machine

    machine = Machine(
        cpu="A CPU",
        architecture="x86_64",
        features=("avx2",),
        cores=2,
        cpus=2,
        memory_bytes=1 << 30,
        system="Linux 6",
        governor=None,
        virtualisation=None,
    )

    def make(*rows: Row, **changes: Any) -> GateReport:
        side = SideInfo(ref="main", commit="0123456789" * 4, worktree=False, dirty=False, own_code=False)
        status = status_of(rows)
        fields: dict[str, Any] = {
            "status": status,
            "exit_code": status.exit_code,
            "time": "2026-01-02T03:04:05Z",
            "seconds": 12.5,
            "base": side,
            "head": side,
            "machine": machine,
            "fitness": (Finding(check="load", fit=False, detail="its CPUs were busy", widening=1.25),),
            "settings": GateSettings(
                threshold=0.03,
                confidence=0.99,
                budget=600.0,
                widening=1.25,
                seed=0,
                target="native",
                scheme=None,
                profile="release",
                sizes=(),
            ),
            "rows": rows,
            "notes": ("A note.",),
            "versions": {"assay": "0"},
        }
        return GateReport(**{**fields, **changes})

    return make
