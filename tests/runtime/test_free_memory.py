from __future__ import annotations

from pathlib import Path

import pytest

from assay.runtime.free_memory import free_memory, peak_memory

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path):
    """Writes files below a root; 8 GiB are available, and there are no groups."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path

    write(
        "proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         100 kB\nMemAvailable:    8388608 kB\n"
    )
    return write


def test_what_the_system_has(machine):
    assert free_memory(machine("proc/self/cgroup", "0::/\n")) == 8192 * MIB


def test_a_group_of_version_2(machine):
    machine("proc/self/cgroup", "0::/user/job\n")
    machine("sys/fs/cgroup/user/job/memory.max", f"{1000 * MIB}\n")
    machine("sys/fs/cgroup/user/job/memory.stat", f"anon 5\ninactive_file {100 * MIB}\nactive_file 7\n")
    root = machine("sys/fs/cgroup/user/job/memory.current", f"{400 * MIB}\n")
    assert free_memory(root) == 700 * MIB
    machine("sys/fs/cgroup/user/memory.current", f"{900 * MIB}\n")
    machine("sys/fs/cgroup/user/memory.max", f"{1100 * MIB}\n")
    assert free_memory(root) == 200 * MIB
    machine("sys/fs/cgroup/user/memory.max", "max\n")
    assert free_memory(root) == 700 * MIB


def test_a_group_of_version_1(machine):
    machine("proc/self/cgroup", "9:name=systemd:/\n4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n")
    machine("sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{500 * MIB}\n")
    root = machine("sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{450 * MIB}\n")
    machine("sys/fs/cgroup/memory/job/memory.stat", f"inactive_file 1\ntotal_inactive_file {20 * MIB}\n")
    assert free_memory(root) == 70 * MIB


def test_inside_a_container_the_group_is_mounted_at_the_base(machine):
    machine("proc/self/cgroup", "0::/outside/name\n")
    machine("sys/fs/cgroup/memory.max", f"{300 * MIB}\n")
    assert free_memory(machine("sys/fs/cgroup/memory.current", f"{100 * MIB}\n")) == 200 * MIB


def test_a_group_that_is_over_its_limit(machine):
    machine("proc/self/cgroup", "0::/\n")
    machine("sys/fs/cgroup/memory.max", "100\n")
    assert free_memory(machine("sys/fs/cgroup/memory.current", "200\n")) == 0


def test_nothing_is_known(tmp_path):
    assert free_memory(tmp_path) is None


def test_this_machine():
    free = free_memory()
    assert free is None or free > 1 << 20


def test_the_peak_of_this_process(tmp_path):
    before = peak_memory()
    assert before is not None
    block = bytearray(b"x") * (300 * MIB)
    after = peak_memory()
    assert after is not None
    assert after >= max(before, len(block))
    assert peak_memory(tmp_path) is None
