from __future__ import annotations

import random
import resource
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from assay.errors import ModelError
from assay.models.sources.gguf_header import read_gguf_header

from .conftest import WriteGguf
from .gguf_bytes import ARRAY, BOOL, STRING, UINT8, UINT32, Gguf, pair, tensor, text


def _write(tmp_path: Path, gguf: Gguf) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf.content())
    return path


def _valid() -> Gguf:
    return Gguf(
        pairs=[
            pair("general.architecture", STRING, text("llama")),
            pair("a.number", UINT32, struct.pack("<I", 7)),
            pair("texts", ARRAY, struct.pack("<IQ", STRING, 2) + text("x") + text("yé")),
            pair("numbers", ARRAY, struct.pack("<IQ", UINT8, 3) + b"\x01\x02\x03"),
            pair("flag", BOOL, b"\x01"),
        ],
        tensors=[tensor("a", (4, 3)), tensor("b", (8,), offset=64)],
        data=bytes(64) + bytes(32),
    )


def test_it_agrees_with_the_library(write_gguf: WriteGguf) -> None:
    generator = np.random.default_rng(0)
    metadata = {
        "llama.block_count": 3,
        "general.name": "smäll",
        "f": 0.5,
        "yes": True,
        "tokenizer.ggml.tokens": ["a", "", "ß"],
        "scores": [0.5, -1.0, 2.0],
        "types": [1, 2, 3],
    }
    path = write_gguf(
        {
            "x": (generator.normal(size=(4, 64)), "F32"),
            "y": (generator.normal(size=(3, 2, 32)), "F16"),
            "z": (generator.normal(size=(5, 96)), "Q4_1"),
            "w": (generator.normal(size=(7,)), "F32"),
        },
        metadata,
    )
    header, reader = read_gguf_header(path), GGUFReader(path)
    assert [
        (
            item.name,
            item.tensor_type.name,
            tuple(int(size) for size in item.shape[::-1]),
            item.data_offset,
            item.n_bytes,
        )
        for item in reader.tensors
    ] == [(item.name, item.type, item.shape, item.offset, item.size) for item in header.tensors.values()]
    for key, value in metadata.items():
        found = header.metadata[key]
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == value
    assert type(header.metadata["yes"]) is bool
    assert header.version == 3


def test_a_hand_made_file_is_read(tmp_path: Path) -> None:
    header = read_gguf_header(_write(tmp_path, _valid()))
    assert header.metadata["texts"] == ["x", "yé"]
    assert header.metadata["flag"] is True
    assert header.tensors["a"].shape == (3, 4)
    assert header.tensors["b"].offset == header.data_offset + 64


def test_other_alignments_count(tmp_path: Path) -> None:
    gguf = _valid()
    gguf.alignment = 128
    gguf.pairs.append(pair("general.alignment", UINT32, struct.pack("<I", 128)))
    gguf.tensors[1] = tensor("b", (8,), offset=128)
    gguf.data = bytes(160)
    header = read_gguf_header(_write(tmp_path, gguf))
    assert header.data_offset % 128 == 0
    assert header.tensors["b"].offset == header.data_offset + 128


def _hostile() -> dict[str, tuple[Gguf, str]]:
    def change(**changes: object) -> Gguf:
        gguf = _valid()
        for name, value in changes.items():
            setattr(gguf, name, value)
        return gguf

    valid = _valid()
    huge = 1 << 62

    def one_pair(kind: int, value: bytes) -> Gguf:
        return change(pairs=[pair("key", kind, value)])

    def one_tensor(*described: bytes) -> Gguf:
        return change(tensors=list(described))

    return {
        "magic": (change(magic=b"GGML"), "does not begin with 'GGUF'"),
        "version 1": (change(version=1), "version 1"),
        "version 4": (change(version=4), "version 4"),
        "big-endian": (change(version=3 << 24), "big-endian"),
        "tensor count": (change(tensor_count=huge), f"claims {huge} tensors"),
        "tensor count by one": (change(tensor_count=3), "truncated or damaged|dimensions|unknown type"),
        "largest tensor count": (change(tensor_count=(1 << 64) - 1), "claims 18446744073709551615 tensors"),
        "pair count": (change(pair_count=huge), f"claims {huge} key-value pairs"),
        "text length": (one_pair(STRING, struct.pack("<Q", huge) + b"x"), "truncated or damaged"),
        "text length that wraps": (
            one_pair(STRING, struct.pack("<Q", (1 << 64) - 8)),
            "truncated or damaged",
        ),
        "array length": (one_pair(ARRAY, struct.pack("<IQ", UINT8, huge)), "truncated or damaged"),
        "array length that wraps": (one_pair(ARRAY, struct.pack("<IQ", 10, 1 << 61)), "truncated or damaged"),
        "texts": (one_pair(ARRAY, struct.pack("<IQ", STRING, huge)), f"claims {huge} strings"),
        "array of arrays": (one_pair(ARRAY, struct.pack("<IQ", ARRAY, 1)), "array of the unknown type 9"),
        "value type": (one_pair(13, b"\0" * 8), "unknown type 13"),
        "array type": (one_pair(ARRAY, struct.pack("<IQ", 99, 1)), "array of the unknown type 99"),
        "truth": (one_pair(BOOL, b"\x02"), "neither true nor false"),
        "key text": (change(pairs=[pair(b"\xff\xfe", UINT8, b"\0")]), "not UTF-8"),
        "value text": (one_pair(STRING, text(b"\xc3")), "not UTF-8"),
        "long key": (change(pairs=[pair("k" * 70000, UINT8, b"\0")]), "over 65535"),
        "key twice": (change(pairs=[valid.pairs[1]] * 2), "key 'a.number' twice"),
        "alignment 0": (
            change(pairs=[pair("general.alignment", UINT32, struct.pack("<I", 0))]),
            "alignment is '0'",
        ),
        "alignment 48": (
            change(pairs=[pair("general.alignment", UINT32, struct.pack("<I", 48))]),
            "not a power of two",
        ),
        "alignment text": (
            change(pairs=[pair("general.alignment", STRING, text("32"))]),
            "not a power of two",
        ),
        "tensor name": (one_tensor(tensor(b"\xff", (4,))), "not UTF-8"),
        "tensor twice": (one_tensor(tensor("a", (4,)), tensor("a", (4,), offset=32)), "tensor 'a' twice"),
        "rank 0": (one_tensor(tensor("a", ())), "has 0 dimensions"),
        "rank 5": (one_tensor(tensor("a", (1,) * 5)), "has 5 dimensions"),
        "rank": (one_tensor(tensor("a", (4,), rank=1 << 31)), "has 2147483648 dimensions"),
        "empty": (one_tensor(tensor("a", (4, 0))), "cannot store"),
        "product": (one_tensor(tensor("a", (1 << 32, 1 << 32))), "cannot store"),
        "product that wraps to 4": (one_tensor(tensor("a", (4, (1 << 62) + 1))), "cannot store"),
        "row": (one_tensor(tensor("a", (33,), kind=2)), "Q4_0 cannot store"),
        "tensor type": (one_tensor(tensor("a", (4,), kind=250)), "unknown type 250"),
        "removed tensor type": (one_tensor(tensor("a", (32,), kind=4)), "unknown type 4"),
        "offset": (one_tensor(tensor("a", (4,), offset=1 << 40)), "truncated or damaged: the tensor 'a'"),
        "offset that wraps": (one_tensor(tensor("a", (4,), offset=(1 << 64) - 32)), "truncated or damaged"),
        "misaligned": (one_tensor(tensor("a", (4,), offset=4)), "off the alignment"),
        "overlap": (one_tensor(tensor("a", (12,)), tensor("b", (4,), offset=32)), "'a' and 'b' overlap"),
        "same place": (one_tensor(tensor("a", (4,)), tensor("b", (4,))), "overlap"),
        "size": (one_tensor(tensor("a", (25,))), "truncated or damaged: the tensor 'a'"),
    }


@pytest.mark.parametrize("case", _hostile())
def test_what_is_wrong_is_told_in_one_sentence(tmp_path: Path, case: str) -> None:
    gguf, message = _hostile()[case]
    with pytest.raises(ModelError, match=message) as raised:
        read_gguf_header(_write(tmp_path, gguf))
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"G", b"GGUF", b"not a model at all, but long enough to be one"])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_gguf_header(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.gguf", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            read_gguf_header(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = _valid().content()
    path = tmp_path / "model.gguf"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            read_gguf_header(path)


def test_hostile_counts_allocate_nothing(tmp_path: Path) -> None:
    cases = [name for name in _hostile() if "count" in name or "length" in name or name in ("texts", "rank")]
    paths = []
    for case in cases:
        path = tmp_path / f"{len(paths)}.gguf"
        path.write_bytes(_hostile()[case][0].content())
        paths.append(path)
    with pytest.raises(ModelError):
        read_gguf_header(paths[0])  # imports are not counted
    tracemalloc.start()
    for path in paths:
        with pytest.raises(ModelError):
            read_gguf_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_large_file_of_nothing_is_refused_without_reading_it(tmp_path: Path) -> None:
    """A sparse file of a terabyte whose counts fit its size, but no model."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k"))
        file.write(struct.pack("<IIQ", ARRAY, STRING, 1 << 30))
        file.truncate(1 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="claims 1073741824 strings"):
        read_gguf_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def _flip(content: bytes, generator: random.Random) -> bytes:
    """``content`` with one to four bytes, or a whole word, changed."""
    changed = bytearray(content)
    if generator.random() < 0.5:
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
    else:
        start = generator.randrange(len(changed) - 8)
        word = generator.choice([0, 1, 0xFFFFFFFF, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1])
        changed[start : start + 8] = struct.pack("<Q", word)
    return bytes(changed)


def _fuzz(path: Path, rounds: int, seed: int) -> tuple[int, int]:
    """Reads files near a valid one; how many were read, and how many refused with a ModelError."""
    content = _valid().content()
    generator = random.Random(seed)
    read = refused = 0
    for _ in range(rounds):
        path.write_bytes(_flip(content, generator))
        try:
            header = read_gguf_header(path)
        except ModelError:
            refused += 1
            continue
        read += 1
        size = path.stat().st_size
        assert all(item.offset + item.size <= size for item in header.tensors.values())
    return read, refused


def test_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = _fuzz(tmp_path / "model.gguf", rounds=700, seed=1)
    assert read > 35
    assert refused > 150


@pytest.mark.slow
def test_many_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    tracemalloc.start()
    _fuzz(tmp_path / "model.gguf", rounds=8000, seed=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
