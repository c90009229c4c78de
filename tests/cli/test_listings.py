from __future__ import annotations

from assay.compile.targets import gpu_targets, targets
from assay.models.registry import models


def test_models_as_json_as_names_and_as_a_table(cli):
    found = cli.json("models")
    assert [entry["name"] for entry in found] == list(models())
    silero = next(entry for entry in found if entry["name"] == "silero-vad")
    assert silero["weights"] == "trained"
    assert not silero["needs_torch"]
    assert silero["inputs"][0]["shape"][0]["name"] == "batch"
    assert cli("models", "-q").stdout.split() == list(models())
    assert "silero-vad" in cli("models").stdout


def test_targets_say_what_runs_here(cli):
    found = cli.json("targets")
    assert [entry["name"] for entry in found] == [*targets(), *gpu_targets()]
    assert sum(entry["native"] for entry in found) <= 1
    for entry in found:
        assert entry["runs_here"] == (entry["why_not"] is None)
    assert "haswell" in cli("targets").stdout


def test_a_target_that_this_cpu_lacks_says_what_is_missing(cli, monkeypatch):
    import assay.runtime.cpu as cpu

    small = cpu.Cpu(machine="x86_64", system="linux", name="Old", features=frozenset({"avx2", "sse3"}))
    monkeypatch.setattr(cpu, "detect_cpu", lambda: small)
    found = {entry["name"]: entry for entry in cli.json("targets")}
    assert not found["x86-64-v4"]["runs_here"]
    assert "avx512f" in found["x86-64-v4"]["why_not"]
