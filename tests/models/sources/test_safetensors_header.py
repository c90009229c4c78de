from __future__ import annotations

import json
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from assay.errors import ModelError
from assay.models.sources.safetensors_header import read_safetensors_header


def _entry(dtype: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_it_agrees_with_the_library(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "b": np.ones((3, 4), np.float32),
        "a": np.ones(5, np.float16),
        "scalar": np.array(1.0, np.float32),
        "empty": np.ones((0, 3), np.float32),
        "mask": np.ones((2, 2), np.bool_),
    }
    save_file(tensors, path, metadata={"format": "np"})
    found = read_safetensors_header(path)
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: array.shape for name, array in tensors.items()
    }
    assert {name: tensor.size for name, tensor in found.items()} == {
        name: array.nbytes for name, array in tensors.items()
    }
    assert found["a"].dtype == "F16"


_GOOD = {"a": _entry("F32", [2, 2], 0, 16), "b": _entry("F16", [4], 16, 24)}
_DATA = bytes(24)
_HUGE = 1 << 62

HOSTILE: dict[str, tuple[Any, bytes, str]] = {
    "not JSON": (b"{{{", b"", "not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "no object": (b"[1, 2]", b"", "not a JSON object"),
    "nested": (b"[" * 100_000, b"", "nested too deep"),
    "long number": (b'{"a": ' + b"9" * 10_000 + b"}", b"", "not valid JSON"),
    "NaN": (b'{"a": NaN}', b"", "NaN is not a number"),
    "twice": (b'{"a": 1, "b": 2, "a": 3}', b"", "'a' is there twice"),
    "entry": ({"a": [1]}, b"", "does not have a dtype"),
    "more": ({"a": {**_entry("F32", [], 0, 4), "x": 1}}, bytes(4), "does not have a dtype"),
    "dtype": ({"a": _entry("F33", [1], 0, 4)}, bytes(4), "unknown dtype 'F33'"),
    "dtype list": ({"a": _entry(["F32"], [1], 0, 4)}, bytes(4), "unknown dtype"),
    "shape": ({"a": _entry("F32", [-1], 0, 4)}, bytes(4), "not lists of sizes"),
    "shape text": ({"a": _entry("F32", "1", 0, 4)}, bytes(4), "not lists of sizes"),
    "shape truth": ({"a": _entry("F32", [True], 0, 4)}, bytes(4), "not lists of sizes"),
    "shape float": ({"a": _entry("F32", [1.0], 0, 4)}, bytes(4), "not lists of sizes"),
    "product": ({"a": _entry("F32", [_HUGE, _HUGE], 0, 4)}, bytes(4), "its shape and dtype need"),
    "product that wraps": ({"a": _entry("F32", [1 << 32, 1 << 32, 1], 0, 0)}, b"", "need"),
    "offsets": ({"a": _entry("F32", [1], 4, 0)}, bytes(4), "its shape and dtype need"),
    "offsets beyond": ({"a": _entry("F32", [1], _HUGE, _HUGE + 4)}, bytes(4), "begins at"),
    "three offsets": (
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
        bytes(4),
        "not lists of sizes",
    ),
    "overlap": ({"a": _entry("F32", [2], 0, 8), "b": _entry("F32", [1], 4, 8)}, bytes(8), "'b' begins at 4"),
    "gap": ({"a": _entry("F32", [1], 0, 4), "b": _entry("F32", [1], 8, 12)}, bytes(12), "'b' begins at 8"),
    "too little": (_GOOD, _DATA[:-1], "truncated or damaged"),
    "too much": (_GOOD, _DATA + b"x", "truncated or damaged"),
    "half a byte": ({"a": _entry("F4", [3], 0, 1)}, bytes(1), "its shape and dtype need"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "not a map of texts"),
    "metadata list": ({"__metadata__": []}, b"", "not a map of texts"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path: Path, case: str) -> None:
    header, data, message = HOSTILE[case]
    with pytest.raises(ModelError, match=message) as raised:
        read_safetensors_header(_file(tmp_path / "model.safetensors", header, data))
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("length", [3, 1 << 20, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    path = _file(tmp_path / "model.safetensors", b"{", length=length)
    with pytest.raises(ModelError, match="not a safetensors file, or is truncated"):
        read_safetensors_header(path)


def test_a_header_that_no_model_needs_is_refused_unread(tmp_path: Path) -> None:
    path = _file(tmp_path / "model.safetensors", b"{}", length=1 << 30)
    with path.open("r+b") as file:
        file.truncate(1 << 31)
    tracemalloc.start()
    with pytest.raises(ModelError, match="which no model needs"):
        read_safetensors_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "model.safetensors", _GOOD, _DATA)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            read_safetensors_header(path)


def _fuzz(path: Path, rounds: int, seed: int) -> tuple[int, int]:
    """Reads files near a valid one; how many were read, and how many refused with a ModelError."""
    generator = random.Random(seed)
    content = _file(path, _GOOD, _DATA).read_bytes()
    read = refused = 0
    for _ in range(rounds):
        changed = bytearray(content)
        for _ in range(generator.randint(1, 3)):
            changed[generator.randrange(len(changed) - len(_DATA))] = generator.choice(
                [generator.randrange(256), *b'0123456789[]{},:"-']
            )
        path.write_bytes(changed)
        try:
            found = read_safetensors_header(path)
        except ModelError:
            refused += 1
            continue
        read += 1
        # What is read here the library reads too, and finds the same.
        with safe_open(path, framework="numpy") as file:
            assert set(file.keys()) == set(found)
    return read, refused


def test_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = _fuzz(tmp_path / "model.safetensors", rounds=600, seed=1)
    assert read > 5
    assert refused > 400


@pytest.mark.slow
def test_many_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = _fuzz(tmp_path / "model.safetensors", rounds=5000, seed=2)
    assert read > 30
    assert refused > 3000
