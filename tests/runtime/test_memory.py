from __future__ import annotations

import numpy as np
import pytest

from assay.runtime.memory import empty_aligned, writable_view


@pytest.mark.parametrize("dtype", ["float32", "bool", "int64", "float16"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 0, 4), (17,)])
def test_empty_aligned(dtype, shape):
    arrays = [empty_aligned(shape, np.dtype(dtype)) for _ in range(5)]
    for array in arrays:
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not array.size or array.ctypes.data % 64 == 0
        array[...] = 1
    assert all(array.all() for array in arrays)


def test_writable_view_is_the_same_memory_and_keeps_it_alive():
    array = np.arange(1000.0)
    expected = array.copy()
    array.flags.writeable = False
    view = writable_view(array)
    assert view.flags.writeable
    assert view.ctypes.data == array.ctypes.data
    del array
    np.testing.assert_array_equal(view, expected)
