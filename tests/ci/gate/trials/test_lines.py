from __future__ import annotations

from pathlib import Path

import pytest

from assay.ci.gate.trials.lines import append_line, cut_last_line, read_lines
from assay.errors import RecordError


def test_a_program_that_was_ended_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    cut_last_line(path)
    assert read_lines(path, int) == []
    for number in range(3):
        append_line(path, number)
    with path.open("a") as file:
        file.write("17")
    assert read_lines(path, int) == [0, 1, 2]
    cut_last_line(path)
    append_line(path, 3)
    assert read_lines(path, int) == [0, 1, 2, 3]


def test_a_line_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('1\n"two"\n')
    with pytest.raises(RecordError, match="line 2"):
        read_lines(path, int)
