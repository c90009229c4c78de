from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.errors import InterfaceError
from assay.runtime.manifest import DecoderInfo
from assay.runtime.memory import empty_aligned
from assay.runtime.paged_call import check_paged_call

INFO = DecoderInfo(
    architecture="llama",
    vocabulary=50,
    context_length=100,
    layers=1,
    heads=1,
    kv_heads=1,
    head_dim=16,
    page_tokens=32,
    cache_dtype="float32",
    max_tokens=64,
    max_sequences=4,
    max_rows=8,
)


def call() -> dict[str, Any]:
    """A prompt of 3 tokens for one sequence, and the 34th token of another."""
    cache = empty_aligned((5, 1, 2, 1, 512), np.dtype(np.float32))
    return {
        "input_ids": np.array([[1, 2, 49, 4]]),
        "position_ids": np.array([[0, 1, 2, 33]]),
        "sequence_offsets": np.array([0, 3, 4], np.int32),
        "past_lengths": np.array([0, 33], np.int32),
        "page_table": np.array([[4, -7], [0, 1]], np.int32),
        "logits_rows": np.array([2, 3]),
        "cache": cache,
    }


def test_a_good_call() -> None:
    check_paged_call(INFO, call())


def _put(name: str, index: Any, value: int) -> Callable[[dict[str, Any]], None]:
    def change(inputs: dict[str, Any]) -> None:
        inputs[name][index] = value

    return change


def _replace(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Any]], None]:
    def change(inputs: dict[str, Any]) -> None:
        inputs[name] = make(inputs[name])

    return change


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _shifted(array: np.ndarray) -> np.ndarray:
    memory = empty_aligned((array.size + 1,), array.dtype)
    return memory[1:].reshape(array.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put("input_ids", (0, 1), 50), "'input_ids' has values from 1 to 50; the vocabulary has 0 to 49"),
        (_put("input_ids", (0, 1), -1), "'input_ids' has values from -1"),
        (_put("position_ids", (0, 3), 100), "the context has 0 to 99"),
        (_put("logits_rows", 0, 4), "the tokens of the call has 0 to 3"),
        (_put("sequence_offsets", 0, 1), "does not divide 4 tokens among 2 sequences"),
        (_put("sequence_offsets", 2, 3), "does not divide"),
        (_put("sequence_offsets", 1, 5), "does not divide"),
        (_replace("sequence_offsets", lambda a: a[:2]), "does not divide"),
        (_put("past_lengths", 0, -1), "Sequence 0 has -1 tokens"),
        (
            _put("past_lengths", 1, 64),
            "Sequence 1 has 64 tokens in the cache and 1 new ones; there is room",
        ),
        (_put("page_table", (1, 1), 5), "sequence 1 names a page that is not there"),
        (_put("page_table", (0, 0), -1), "sequence 0 names a page"),
        (_replace("cache", _read_only), "'cache' cannot be written in place"),
        (_replace("cache", _shifted), "'cache' cannot be written in place"),
        (_replace("cache", lambda a: a[::2]), "'cache' cannot be written in place"),
    ],
)
def test_what_kernels_must_not_follow(change: Callable[[dict[str, Any]], None], message: str) -> None:
    inputs = call()
    change(inputs)
    with pytest.raises(InterfaceError) as caught:
        check_paged_call(INFO, inputs)
    assert message in caught.value.message


def test_the_context_is_the_limit_of_a_wide_table() -> None:
    inputs = call()
    inputs["page_table"] = np.zeros((2, 4), np.int32)
    inputs["past_lengths"][1] = 100
    with pytest.raises(InterfaceError, match="room for 100"):
        check_paged_call(INFO, inputs)
