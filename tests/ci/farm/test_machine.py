from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.ci.farm import machine
from assay.ci.farm.machine import BusyMachineError, turn, wait_until_idle


class Visitor:
    """A job that takes its turn in a thread of its own, and says when it is there."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self.there, self._leave = threading.Event(), threading.Event()

        def visit() -> None:
            with turn(alone=alone, folder=folder):
                self.there.set()
                self._leave.wait(30)

        self._thread = threading.Thread(target=visit, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(30)

    def is_kept_out(self) -> bool:
        return not self.there.wait(0.2)


def test_builds_share_a_machine_and_measurements_do_not(tmp_path: Path) -> None:
    builds = [Visitor(tmp_path, alone=False) for _ in range(2)]
    assert all(build.there.wait(30) for build in builds)
    timing = Visitor(tmp_path, alone=True)
    assert timing.is_kept_out()
    later = Visitor(tmp_path, alone=False)
    assert later.is_kept_out()  # or builds after builds would keep measurements out for good
    for build in builds:
        build.leave()
    assert timing.there.wait(30)
    assert later.is_kept_out()
    timing.leave()
    assert later.there.wait(30)
    later.leave()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


@pytest.mark.usefixtures("clock")
def test_a_busy_machine_is_waited_for_and_given_up() -> None:
    shares: Iterator[float | None] = iter([0.9, 0.5, 0.1])
    wait_until_idle(0.2, 60, lambda: next(shares))
    assert next(shares, "all were asked for") == "all were asked for"
    with pytest.raises(BusyMachineError, match="90% busy with other work for 60 s; at most 20%"):
        wait_until_idle(0.2, 60, lambda: 0.9)
    wait_until_idle(0.2, 0, lambda: None)  # where the system does not tell


def test_the_share_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([(100.0, 0.0, 1000.0), (130.0, 0.0, 1100.0)])
    monkeypatch.setattr(machine, "cpu_times", lambda: next(ticks))
    assert machine.busy_share(0.0) == pytest.approx(0.3)
    monkeypatch.setattr(machine, "cpu_times", lambda: None)
    assert machine.busy_share(0.0) is None
