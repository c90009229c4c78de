from __future__ import annotations

import os
import platform
import sys

import pytest

from assay.errors import CpuFeatureError
from assay.runtime import cpu as module
from assay.runtime.cpu import (
    Cpu,
    available_cores,
    available_cpus,
    canonical_feature,
    canonical_machine,
    check_features,
    check_triple,
    detect_cpu,
)

HASWELL = Cpu(
    machine="x86_64",
    system="linux",
    name="Haswell",
    features=frozenset({"avx", "avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}),
)


def test_names_are_one():
    assert canonical_machine("AMD64") == "x86_64"
    assert canonical_machine("arm64") == "aarch64"
    assert canonical_machine("riscv64") == "riscv64"
    for linux, llvm in [
        ("avx512_vnni", "avx512vnni"),
        ("sse4_2", "sse4.2"),
        ("amx_tile", "amx-tile"),
        ("asimd", "neon"),
        ("asimddp", "dotprod"),
        ("abm", "lzcnt"),
        ("bmi1", "+bmi"),
    ]:
        assert canonical_feature(linux) == canonical_feature(llvm)


def test_detected_features_are_enough_for_what_this_machine_runs():
    cpu = detect_cpu()
    assert cpu.machine == canonical_machine(platform.machine())
    assert cpu.features
    check_features(cpu.features)
    if cpu.machine == "x86_64":
        check_features(["sse2"])
    elif cpu.machine == "aarch64":
        check_features(["neon"])


def test_missing_features_are_listed_with_what_to_build():
    with pytest.raises(CpuFeatureError, match=r"Haswell.*avx512bw, avx512f") as caught:
        check_features(["avx2", "avx512f", "avx512bw"], HASWELL)
    assert "x86-64-v3" in (caught.value.hint or "")
    check_features(["avx2", "fma"], HASWELL)


def test_names_of_linux_and_llvm_both_work():
    cpu = Cpu(machine="x86_64", system="linux", name="x", features=frozenset({"avx512vnni"}))
    check_features(["avx512_vnni", "avx512vnni", "avx512-vnni"], cpu)


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "x86_64-unknown-linux-gnu", "x86_64"])
def test_triple_of_this_machine(triple):
    check_triple(triple, HASWELL)


@pytest.mark.parametrize(
    ("triple", "words"),
    [
        ("aarch64-linux-gnu", "for aarch64 machines; this one is x86_64"),
        ("riscv64-unknown-linux-gnu", "riscv64"),
        ("x86_64-apple-macos11", "for darwin; this machine runs linux"),
        ("x86_64-pc-windows-msvc", "windows"),
    ],
)
def test_triple_of_another_machine(triple, words):
    with pytest.raises(CpuFeatureError, match=words):
        check_triple(triple, HASWELL)


X86 = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu sse4_2 avx512_vnni pni

processor\t: 1
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp sve\nCPU part\t: 0xd0c\n"
RISCV = "processor\t: 0\nisa\t\t: rv64imafdcv_zicsr\nuarch\t: sifive,u74\n"


@pytest.mark.parametrize(
    ("text", "name", "features"),
    [
        (X86, "Some CPU @ 2.00GHz", {"avx512vnni", "sse42", "sse3"}),
        (ARM, "0xd0c", {"neon", "dotprod", "sve"}),
        (RISCV, "sifive,u74", {"v", "c", "zicsr"}),
    ],
)
def test_cpuinfo(tmp_path, text, name, features):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    found, flags = module._linux_cpu(path)
    assert found == name
    assert set(map(canonical_feature, flags)) >= features


def test_no_cpuinfo(tmp_path):
    assert module._linux_cpu(tmp_path / "absent")[1] == []


def test_hyper_threads_count_once(tmp_path, monkeypatch):
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(module, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    monkeypatch.setattr(module, "available_cpus", lambda: tuple(range(8)))
    assert available_cores() == 4
    monkeypatch.setattr(module, "available_cpus", lambda: (1, 5))
    assert available_cores() == 1
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    monkeypatch.setattr(module, "available_cpus", lambda: tuple(range(8)))
    assert available_cores() == 3
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cores() == 4


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_affinity_is_respected():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cpus() == (min(before),)
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
