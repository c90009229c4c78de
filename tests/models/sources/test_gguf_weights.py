from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize as library_values

from assay.errors import ModelError
from assay.models.decoders.weights import BlockQuantized, dequantize
from assay.models.sources.gguf_header import read_gguf_header
from assay.models.sources.gguf_weights import GgufWeights

from .conftest import WriteGguf
from .gguf_bytes import Gguf, tensor


def _open(path: Path) -> GgufWeights:
    return GgufWeights(read_gguf_header(path))


def _values(tensor: Any) -> np.ndarray[Any, Any]:
    return dequantize(tensor) if isinstance(tensor, BlockQuantized) else np.asarray(tensor, np.float32)


def _raw(path: Path, kind: GGMLQuantizationType, blocks: bytes, shape: tuple[int, ...]) -> GgufWeights:
    """A file with the one tensor ``w`` of exactly these bytes."""
    path.write_bytes(Gguf(tensors=[tensor("w", shape[::-1], int(kind))], data=blocks).content())
    return _open(path)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_values_are_those_of_the_library(write_gguf: WriteGguf, kind: str) -> None:
    generator = np.random.default_rng(0)
    path = write_gguf({"w": (generator.normal(size=(17, 96)), kind), "v": (generator.normal(size=9), "F32")})
    weights = _open(path)
    assert weights.names() == ("w", "v")
    assert weights.shape("w") == (17, 96)
    assert weights.type("w") == kind
    stored = GGUFReader(path).tensors[0]
    expected = library_values(stored.data, stored.tensor_type)
    found = _values(weights.read("w"))
    assert found.shape == (17, 96)
    # With a minimum it is scale * (code - zero point) here, and scale * code + minimum there.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 if kind in ("Q4_1", "Q5_1") else 0)


def test_stored_dtypes_are_kept(write_gguf: WriteGguf) -> None:
    values = np.linspace(-2, 2, 64).reshape(2, 32)
    path = write_gguf({"a": (values, "F32"), "b": (values, "F16"), "c": (values, "BF16")})
    weights = _open(path)
    dtypes = [np.asarray(weights.read(name)).dtype for name in "abc"]
    assert dtypes == [np.float32, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize(("kind", "bits", "block"), [("Q4_K", 4, 32), ("Q5_K", 32, 0), ("Q6_K", 8, 16)])
def test_super_blocks_lose_nothing(tmp_path: Path, kind: str, bits: int, block: int) -> None:
    generator = np.random.default_rng(1)
    type_ = GGMLQuantizationType[kind]
    size = {"Q4_K": 144, "Q5_K": 176, "Q6_K": 210}[kind]
    blocks = generator.integers(0, 256, (40, size), dtype=np.uint8)
    scales = [208] if kind == "Q6_K" else [0, 2]  # where the float16 scales lie
    for start in scales:
        blocks[:, start : start + 2] = generator.normal(0, 0.01, (40, 1)).astype("<f2").view(np.uint8)
    blocks[:3, scales[0] : scales[0] + 2] = 0  # a scale of 0
    weights = _raw(tmp_path / "model.gguf", type_, blocks.tobytes(), (20, 512))
    found = weights.read("w")
    expected = library_values(blocks.reshape(20, -1), type_)
    if kind == "Q5_K":
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, expected)
        assert weights.canonical_bytes("w") == found.nbytes
        return
    assert isinstance(found, BlockQuantized)
    assert (found.bits, found.block_size, found.shape) == (bits, block, (20, 512))
    assert int(found.codes.max()) < 2**bits
    # scale * (code - zero point) here, and scale * code - minimum there.
    tolerance = 0 if kind == "Q6_K" else 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(dequantize(found), expected, rtol=0, atol=tolerance)
    zeros = 0 if found.zero_points is None else found.zero_points.nbytes
    assert found.codes.size * bits // 8 + found.scales.nbytes + zeros <= weights.canonical_bytes("w")


def _block_q4_1(scale: float, minimum: float, codes: list[int]) -> bytes:
    packed = bytes(codes[index] | codes[index + 16] << 4 for index in range(16))
    return struct.pack("<ee", scale, minimum) + packed


def test_q4_1_gives_scales_and_minimums_back_exactly(tmp_path: Path) -> None:
    """The bits of d and m, for m far above d, zeros, and the smallest and largest of float16."""
    generator = np.random.default_rng(2)
    bits = generator.integers(0, 1 << 16, (4000, 2), dtype=np.uint16)
    halves = bits.view(np.float16)
    halves[:50, 0] = 0
    halves[25:75, 1] = 0
    halves[100:110] = np.array([6e-8, 65504], np.float16)
    halves[110:120] = np.array([-6e-8, -65504], np.float16)
    halves = halves[np.isfinite(halves).all(axis=1)]
    codes = generator.integers(0, 16, (len(halves), 32))
    blocks = b"".join(
        _block_q4_1(float(d), float(m), row.tolist()) for (d, m), row in zip(halves, codes, strict=True)
    )
    weights = _raw(tmp_path / "model.gguf", GGMLQuantizationType.Q4_1, blocks, (len(halves), 32))
    found = weights.read("w")
    assert isinstance(found, BlockQuantized)
    assert (found.bits, found.block_size) == (4, 32)
    assert found.zero_points is not None
    minimums = (-found.zero_points * found.scales).astype(np.float16)[:, 0]
    np.testing.assert_array_equal(minimums, halves[:, 1])
    scaled = halves[:, 0] != 0
    np.testing.assert_array_equal(found.scales[scaled, 0].astype(np.float16), halves[scaled, 0])
    np.testing.assert_array_equal(found.codes[scaled], codes[scaled])
    # Where d is 0, every value is m.
    np.testing.assert_array_equal(found.scales[~scaled, 0], halves[~scaled, 1].astype(np.float32))
    assert (found.zero_points[~scaled] == -1).all()
    assert (found.codes[~scaled] == 0).all()


def test_q4_0_and_q8_0_lose_nothing(tmp_path: Path) -> None:
    codes = list(range(16)) * 2
    packed = bytes(codes[index] | codes[index + 16] << 4 for index in range(16))
    four = _raw(tmp_path / "4.gguf", GGMLQuantizationType.Q4_0, struct.pack("<e", -0.5) + packed, (1, 32))
    found = four.read("w")
    assert isinstance(found, BlockQuantized)
    assert found.zero_points is None
    np.testing.assert_array_equal(found.codes[0], codes)
    np.testing.assert_array_equal(_values(found)[0], -0.5 * (np.array(codes) - 8))
    signed = np.arange(-16, 16) * 8 - 1
    content = struct.pack("<e", 0.25) + signed.clip(-128).astype(np.int8).tobytes()
    eight = _raw(tmp_path / "8.gguf", GGMLQuantizationType.Q8_0, content, (1, 32)).read("w")
    assert isinstance(eight, BlockQuantized)
    np.testing.assert_array_equal(_values(eight)[0], 0.25 * signed.clip(-128))
    assert eight.bits == 8


def test_blocks_that_are_no_matrix_come_as_values(write_gguf: WriteGguf) -> None:
    values = np.random.default_rng(3).normal(size=(2, 3, 32))
    path = write_gguf({"experts": (values, "Q8_0"), "bias": (values[0, 0], "Q8_0")})
    weights = _open(path)
    for name, shape in (("experts", (2, 3, 32)), ("bias", (32,))):
        found = weights.read(name)
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (np.float32, shape)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "TQ1_0", "IQ4_XS", "I8", "F64"])
def test_other_types_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    size = {"Q2_K": 84, "Q3_K": 110, "TQ1_0": 54, "IQ4_XS": 136, "I8": 256, "F64": 2048}[kind]
    with pytest.raises(ModelError, match=f"type {kind}, which is not read") as raised:
        _raw(tmp_path / "model.gguf", GGMLQuantizationType[kind], bytes(size), (1, 256))
    assert "Q4_1" in (raised.value.hint or "")


def test_only_what_is_asked_for_is_read(write_gguf: WriteGguf) -> None:
    """The bytes of a tensor that nobody reads may be anything: they are not looked at."""
    good, bad = np.ones((4, 32)), np.full((4, 32), np.nan)
    path = write_gguf({"good": (good, "F32"), "bad": (bad, "F32")})
    weights = _open(path)
    np.testing.assert_array_equal(weights.read("good"), good)
    with pytest.raises(ModelError, match=r"'bad' has 128 weights or scales that are not finite"):
        weights.read("bad")


@pytest.mark.parametrize(
    "kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
)
def test_what_is_not_finite_is_refused(tmp_path: Path, kind: str) -> None:
    type_ = GGMLQuantizationType[kind]
    sizes = {"F32": (4, 1), "F16": (2, 1), "BF16": (2, 1), "Q4_0": (18, 32), "Q4_1": (20, 32)}
    sizes |= {"Q8_0": (34, 32), "Q5_0": (22, 32), "Q5_1": (24, 32), "Q4_K": (144, 256), "Q5_K": (176, 256)}
    sizes |= {"Q6_K": (210, 256)}
    size, block = sizes[kind]
    content = bytearray(np.full(512 // block * size, 1, np.uint8).tobytes())
    place = 208 if kind == "Q6_K" else 0
    content[place : place + 4] = {
        "F32": struct.pack("<f", np.inf),
        "BF16": b"\x80\x7f\0\0",
    }.get(kind, struct.pack("<ee", np.nan, 0))[: min(4, len(content) - place)]
    weights = _raw(tmp_path / "model.gguf", type_, bytes(content), (2, 256))
    with pytest.raises(ModelError, match="not finite"):
        weights.read("w")


def test_an_unknown_name_is_a_key_error(write_gguf: WriteGguf) -> None:
    weights = _open(write_gguf({"w": (np.ones((1, 32)), "F32")}))
    with pytest.raises(KeyError):
        weights.read("x")
