from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.compile.emulation import FEATURES, bochs, missing_parts, run_emulated
from assay.compile.targets import targets
from assay.compile.verify import Case
from assay.errors import EmulatorError, VerificationError

CASE = Case(sizes={}, inputs={"x": np.zeros(3, np.float32)}, expected={"y": np.ones(2, np.float32)})


def test_the_emulated_cpu_has_what_the_targets_up_to_vnni_need() -> None:
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-vnni"):
        assert set(targets()[name].features) <= FEATURES


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ASSAY_EMULATOR_KERNEL", str(tmp_path / "none"))
    assert {"bochs", "xorriso", "busybox"} <= set(missing_parts())
    with pytest.raises(EmulatorError, match=r"bochs.*a Linux kernel.*is missing") as raised:
        run_emulated(tmp_path, [CASE], level="x86-64-v4", timeout=1)
    assert "emulator.sh" in (raised.value.hint or "")


def sent(name: str, content: bytes) -> str:
    return f"BEGIN /cases/{name}\n{base64.encodebytes(content).decode()}END\n"


def test_outputs_are_received(tmp_path: Path) -> None:
    text = f"STARTED\n\nSUCCEEDED\n{sent('outputs0.npz', b'a' * 99)}{sent('outputs1.npz', b'b')}FINISHED\n"
    bochs._receive(text, tmp_path, 2)
    assert (tmp_path / "outputs0.npz").read_bytes() == b"a" * 99
    assert (tmp_path / "outputs1.npz").read_bytes() == b"b"
    with pytest.raises(EmulatorError, match="sent 2 outputs, not 3"):
        bochs._receive(text, tmp_path, 3)


def test_what_the_machine_sends_may_be_damaged_or_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmulatorError, match="damaged"):
        bochs._receive("\nSUCCEEDED\nBEGIN /cases/outputs0.npz\nYW?=\nEND\n", tmp_path, 1)
    with pytest.raises(VerificationError, match="Illegal instruction"):
        bochs._receive("STARTED\nIllegal instruction\nBEGIN x\nEND\nFINISHED\n", tmp_path, 1)


@pytest.fixture
def fake_bochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a script in the place of the emulator."""

    def install(script: str) -> Path:
        folder = tmp_path / "machine"
        (tmp_path / "bin").mkdir()
        folder.mkdir()
        program = tmp_path / "bin" / "bochs"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return folder

    return install


def test_the_machine_is_waited_for_and_then_ended(fake_bochs: Any) -> None:
    folder = fake_bochs(
        r"trap '' TERM; printf 'STARTED\r\nSUCCEEDED\r\nFINISHED\r\n' > serial.txt; sleep 600"
    )
    assert bochs._run_machine(folder, 60) == "STARTED\nSUCCEEDED\nFINISHED\n"
    assert "corei7_icelake_u" in (folder / "bochsrc").read_text()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 1", "did not start within 1 s: it said nothing"),
        ("echo 'Kernel panic' > serial.txt; exit 1", "did not start within 1 s: Kernel panic"),
        ("echo STARTED > serial.txt; sleep 600", "was not done within 1 s: STARTED"),
    ],
)
def test_a_machine_that_does_not_finish(fake_bochs: Any, script: str, message: str) -> None:
    with pytest.raises(EmulatorError, match=message):
        bochs._run_machine(fake_bochs(script), 1)
