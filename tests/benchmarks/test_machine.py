from __future__ import annotations

import os

import msgspec
import pytest

from assay.benchmarks import machine
from assay.errors import UsageError


def test_fingerprint_says_what_this_machine_is():
    found = machine.fingerprint()
    assert found.cpu
    assert found.cpus >= found.cores >= 1
    assert found.memory_bytes > 1 << 28
    assert os.uname().sysname in found.system
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_cpus_are_distinct_and_available():
    chosen = machine.choose_cpus(3, available=(0, 2, 4, 6))
    assert len(set(chosen)) == 3
    assert set(chosen) <= {0, 2, 4, 6}


def test_hyper_threads_of_one_core_are_the_last_choice(tmp_path, monkeypatch):
    for cpu, siblings in {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}.items():
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(machine, "_TOPOLOGY", tmp_path)
    assert machine.choose_cpus(2, available=(0, 1, 2, 3)) == (1, 3)
    assert machine.choose_cpus(3, available=(0, 1, 2, 3)) == (1, 2, 3)


def test_more_threads_than_cpus_are_refused():
    with pytest.raises(UsageError, match="may use 2 CPUs"):
        machine.choose_cpus(3, available=(0, 1))
