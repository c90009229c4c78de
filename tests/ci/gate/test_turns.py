from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.benchmarks.machine import choose_cpus
from assay.ci.gate.processes import Contender, SideError
from assay.ci.gate.turns import take_turns, turn_order

_QUICK = "def run(inputs): sum(range(2000))"


def _contender(folder: Path, environment: dict[str, str], name: str, code: str) -> Contender:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    np.savez(folder / f"{name}.npz", x=np.zeros(3, np.float32))
    return Contender(
        python=Path(sys.executable),
        artifact=folder / f"{name}.py",
        inputs=folder / f"{name}.npz",
        threads=1,
        cpus=choose_cpus(1),
        seconds=0.01,
        environment=environment,
    )


def test_both_sides_take_as_many_samples_of_as_many_runs(tmp_path: Path, runtime: dict[str, str]) -> None:
    pairs = [
        (
            _contender(tmp_path, runtime, f"base{name}", code),
            _contender(tmp_path, runtime, f"head{name}", code),
        )
        for name, code in (("quick", _QUICK), ("slow", "def run(inputs): sum(range(200_000))"))
    ]
    for in_turn in (True, False):
        runs = take_turns(pairs, random.Random(0), timeout=60, in_turn=in_turn)
        assert len(runs) == 2
        for base, head in runs:
            assert base.calls_per_sample == head.calls_per_sample
            assert len(base.wall) == len(base.cpu) == len(head.wall) == len(head.cpu) >= 3
            assert min(*base.wall, *base.cpu, base.load_time, base.first_run_time) > 0
        assert runs[0][0].calls_per_sample > runs[1][0].calls_per_sample


def test_who_goes_first_is_drawn_for_each_turn() -> None:
    order = turn_order(200, random.Random(0), in_turn=True)
    turns = list(zip(order[::2], order[1::2], strict=True))
    assert len(turns) == 200
    assert set(turns) == {("base", "head"), ("head", "base")}
    assert 60 < turns.count(("base", "head")) < 140
    firsts = {tuple(turn_order(2, random.Random(seed), in_turn=False)) for seed in range(20)}
    assert firsts == {("base", "base", "head", "head"), ("head", "head", "base", "base")}


def test_cpu_time_leaves_waiting_out(tmp_path: Path, runtime: dict[str, str]) -> None:
    waiting = "import time\ndef run(inputs): time.sleep(0.005)"
    pair = (_contender(tmp_path, runtime, "b", waiting), _contender(tmp_path, runtime, "h", waiting))
    ((base, _),) = take_turns([pair], random.Random(0), timeout=60)
    assert base.wall_time >= 0.005
    assert base.cpu_time < base.wall_time
    assert base.latency == base.cpu_time


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ValueError('no such kernel')", "no such kernel"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os\nos._exit(3)", "nothing to stderr"),
    ],
)
@pytest.mark.parametrize("side", ["base", "head"])
def test_a_process_that_fails(
    tmp_path: Path, runtime: dict[str, str], code: str, told: str, side: str
) -> None:
    codes = {"base": _QUICK, "head": _QUICK, side: code}
    base, head = (_contender(tmp_path, runtime, name, text) for name, text in codes.items())
    with pytest.raises(SideError, match=told) as caught:
        take_turns([(base, head)], random.Random(0), timeout=60)
    assert caught.value.side == side


def test_a_process_that_hangs(tmp_path: Path, runtime: dict[str, str]) -> None:
    hanging = _contender(tmp_path, runtime, "h", "import time\ntime.sleep(1000)")
    quick = _contender(tmp_path, runtime, "b", _QUICK)
    with pytest.raises(SideError, match="did not finish within 3 s"):
        take_turns([(quick, hanging)], random.Random(0), timeout=3)


def test_a_process_that_prints(tmp_path: Path, runtime: dict[str, str]) -> None:
    noisy = _contender(tmp_path, runtime, "h", "def run(inputs): print('hello', flush=True)")
    ((base, head),) = take_turns([(noisy, noisy)], random.Random(0), timeout=60)
    assert base.wall
    assert head.wall


def test_temporary_files_of_processes_are_removed(
    tmp_path: Path, runtime: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    code = "import tempfile\ntempfile.mkdtemp()\ndef run(inputs): pass"
    leaving = _contender(tmp_path, runtime, "b", code)
    take_turns([(leaving, leaving)], random.Random(0), timeout=60)
    assert not list(place.iterdir())


def test_an_interpreter_that_is_none(tmp_path: Path, runtime: dict[str, str]) -> None:
    import dataclasses

    quick = _contender(tmp_path, runtime, "b", _QUICK)
    none = dataclasses.replace(quick, python=tmp_path / "python")
    with pytest.raises(SideError, match="cannot be started"):
        take_turns([(quick, none)], random.Random(0), timeout=60)


_DECODER = """
seen = []
def forward(cached, tokens):
    assert len(cached) + len(tokens) <= 5
    assert (len(cached), len(tokens)) in [(0, 4), (4, 1)]
    seen.append((len(cached), len(tokens)))
    assert seen[-1] == (EXPECTED if len(seen) > 1 else (0, 4)), seen
"""


@pytest.mark.parametrize(("phase", "expected"), [("prefill", (0, 4)), ("decode", (4, 1))])
def test_phases_of_language_models(
    tmp_path: Path, runtime: dict[str, str], phase: str, expected: tuple[int, int]
) -> None:
    """Only the first call of a decoding process takes the prompt."""
    code = _DECODER.replace("EXPECTED", str(expected))
    pair = tuple(replace(_contender(tmp_path, runtime, name, code), phase=phase) for name in ("base", "head"))
    for one in pair:
        np.savez(one.inputs, prompt=np.arange(4))
    ((base, head),) = take_turns([pair], random.Random(0), timeout=300)
    assert min(*base.wall, *head.wall) > 0
