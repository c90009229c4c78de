from __future__ import annotations

import numpy as np
import pytest

from assay.errors import UsageError
from assay.runtime.generate.engine import StepMemory
from assay.runtime.generate.example_call import example_call
from assay.runtime.paged_call import check_paged_call


@pytest.mark.parametrize(
    "sizes", [{}, {"tokens": 1}, {"tokens": 1, "past": 100}, {"tokens": 12, "sequences": 4}, {"past": 31}]
)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_call_that_is_checked(llama, sizes, dtype):
    info = llama.make_info(cache_dtype=dtype)
    call = example_call(info, sizes)
    check_paged_call(info, call)
    assert call["input_ids"].shape[1] == sizes.get("tokens", 48) * sizes.get("sequences", 1)
    assert ("cache_scales" in call) == (dtype == "int8")
    assert call["past_lengths"].tolist() == [sizes.get("past", 0)] * sizes.get("sequences", 1)
    memory = StepMemory(info, 256).arguments(1, 1, 1)
    for array, expected in zip(call.values(), memory.arrays(), strict=False):
        assert array.dtype == expected.dtype
        assert array.ndim == expected.ndim


def test_a_call_runs(llama):
    info = llama.make_info()
    call = example_call(info, {"tokens": 5, "past": 40, "sequences": 2}, seed=3)
    names = ["input_ids", "position_ids", "sequence_offsets", "past_lengths", "page_table", "logits_rows"]
    arguments = StepMemory(info, 256).arguments(10, 2, 2)
    wide = arguments.page_table.shape[1]
    for name in names:
        array = getattr(arguments, name)
        array[...] = 0
        array[..., : call[name].shape[-1]] = call[name]
    assert wide == 8
    cache = type("Cache", (), {"arrays": (call["cache"],)})()
    logits = llama.NumpyLlama(info, llama.Weights(info), cache).run(arguments, 1)
    assert logits.shape == (2, info.vocabulary)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    "sizes",
    [
        {"tokens": 0},
        {"tokens": 49},
        {"sequences": 5, "tokens": 1},
        {"past": 256},
        {"past": -1},
        {"sequences": 0},
    ],
)
def test_a_call_that_there_is_not(llama, sizes):
    with pytest.raises(UsageError, match="is none that the model takes"):
        example_call(llama.make_info(), sizes)


def test_an_unknown_size(llama):
    with pytest.raises(UsageError, match="no size 'batch'"):
        example_call(llama.make_info(), {"batch": 2})
