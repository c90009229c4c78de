"""Our products on OpenCL beside CLBlast's, in turns."""

from __future__ import annotations

import ctypes.util
import re

import pytest

from assay.ci import clblast
from assay.ci.clblast import main
from assay.runtime.devices import find_devices


@pytest.mark.slow
def test_both_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    if not find_devices()["opencl"].devices or ctypes.util.find_library("clblast") is None:
        pytest.skip("needs an OpenCL device and CLBlast, which ci/emulator.sh installs")
    assert main(["96x80x64", "33x65x17", "--repeats", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == ["96x80x64", "33x65x17"]
    for line in said:
        errors = [float(each) for each in re.findall(r"error (\S+?)[;,]", line)]
        assert len(errors) == 2
        assert max(errors) < 1e-4
        assert "CLBlast/ours" in line


def test_bad_words_and_a_library_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["512x512"], ["0x4x4"], ["axbxc"]):
        assert main(words) != 0
        assert "is no size" in capsys.readouterr().err
    pytest.importorskip("pyopencl", reason="needs the opencl extra: pip install -e '.[opencl]'")
    monkeypatch.setattr(clblast.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(clblast, "_ours", lambda a, b: lambda: a @ b)
    assert main(["4x4x4"]) != 0
    assert "apt install libclblast1" in capsys.readouterr().err
