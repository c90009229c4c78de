from __future__ import annotations

import numpy as np

from assay.benchmarks.arrays import load_arrays, save_arrays


def test_arrays_lie_at_boundaries(tmp_path):
    save_arrays(tmp_path / "a.npz", {"x": np.ones(3, np.float32), "flag": np.array(True)})
    assert all(array.ctypes.data % 64 == 0 for array in load_arrays(tmp_path / "a.npz").values())


def test_any_name_dtype_and_shape_is_kept(tmp_path):
    arrays = {
        "file": np.arange(6, dtype=np.int64).reshape(2, 3),
        "gpu_0/data_0": np.ones((1, 2), np.float16),
        "serving_default_input_2:0": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.bool_),
    }
    save_arrays(tmp_path / "a.npz", arrays)
    found = load_arrays(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
