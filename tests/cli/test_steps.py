from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from assay.cli.output import Output
from assay.cli.steps import AnimatedSteps, LineSteps
from assay.progress import SilentProgress


def test_a_pipe_gets_the_steps_that_took_over_a_second(capsys, monkeypatch):
    steps = LineSteps(everything=False)
    with steps.step("quick"):
        pass
    assert capsys.readouterr().err == ""
    clock = iter([10.0, 12.5])
    monkeypatch.setattr("assay.cli.steps.perf_counter", lambda: next(clock))
    with steps.step("slow"):
        pass
    assert capsys.readouterr().err == "  slow: 2.5 s\n"


def test_verbose_gets_every_step(capsys):
    with LineSteps(prefix="[1/2] tiny: ", everything=True).step("quick"):
        pass
    assert "[1/2] tiny: quick: 0.0 s" in capsys.readouterr().err


def test_a_step_that_fails_is_not_told_as_done(capsys):
    def fail() -> None:
        with LineSteps(everything=True).step("broken"):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert "broken" not in capsys.readouterr().err


def test_an_animation_names_the_steps_and_leaves_nothing_behind():
    stream = io.StringIO()
    steps = AnimatedSteps(Console(file=stream, force_terminal=True, width=80))
    with steps.step("outer [bold]"), steps.step("inner"):
        time.sleep(0.25)
    assert "outer [bold]" in stream.getvalue()
    assert "inner" in stream.getvalue()
    assert not steps._progress.live.is_started


def test_an_animation_ends_with_an_error():
    steps = AnimatedSteps(Console(file=io.StringIO(), force_terminal=True))

    def interrupted() -> None:
        with steps.step("outer"), steps.step("inner"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not steps._progress.live.is_started


@pytest.mark.parametrize("output", [Output(quiet=True), Output(json=True)])
def test_quiet_and_json_show_no_steps(output):
    assert isinstance(output.progress(), SilentProgress)


def test_json_with_verbose_shows_steps():
    assert isinstance(Output(json=True, verbosity=1).progress(), LineSteps)
