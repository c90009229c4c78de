from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.errors import StorageError
from assay.runtime.recording import record_inputs


def test_cases_are_numbered_and_hold_what_was_given(tmp_path: Path) -> None:
    first, second = ({"x": np.arange(n), "gpu_0/data": np.ones((n, 2), np.float32)} for n in (2, 3))
    paths = [record_inputs(tmp_path / "new" / "w", inputs) for inputs in (first, second)]
    assert [path.name for path in paths] == ["000000.npz", "000001.npz"]
    with np.load(paths[1]) as archive:
        assert sorted(archive.files) == ["gpu_0/data", "x"]
        np.testing.assert_array_equal(archive["x"], second["x"])
        np.testing.assert_array_equal(archive["gpu_0/data"], second["gpu_0/data"])


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"kept")
    assert record_inputs(tmp_path, {"x": np.arange(2)}).name == "000000.npz"
    assert (tmp_path / "mine.npz").read_bytes() == b"kept"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        record_inputs(tmp_path / "file" / "w", {"x": np.arange(2)})
