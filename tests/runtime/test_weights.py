from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from assay.errors import ArtifactError
from assay.runtime.packing import Region
from assay.runtime.weights import map_weights, read_header, save_weights

DTYPES = ["float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool"]


def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    made = {
        f"{dtype}_{'x'.join(map(str, shape))}": generator.integers(0, 2, shape).astype(dtype)
        for dtype in DTYPES
        for shape in [(3, 5), (16, 4), (1,), (7,)]
    }
    return {
        **made,
        "scalar": np.array(7, np.int64),
        "empty": np.empty((0, 4), np.float16),
        "empty odd": np.empty((3, 0), np.int8),
    }


def test_round_trip(tmp_path):
    path = tmp_path / "w.safetensors"
    saved = tensors()
    save_weights(path, saved)
    mapped = map_weights(path)
    assert mapped.keys() == saved.keys()
    for name, tensor in saved.items():
        assert mapped[name].dtype == tensor.dtype
        assert mapped[name].shape == tensor.shape
        np.testing.assert_array_equal(mapped[name], tensor)


def test_every_tensor_is_aligned_in_file_and_memory(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors())
    assert {info.start % 64 for info in read_header(path)} == {0}
    assert {tensor.ctypes.data % 64 for tensor in map_weights(path).values() if tensor.size} == {0}


def test_the_safetensors_library_reads_it(tmp_path):
    path = tmp_path / "w.safetensors"
    saved = tensors()
    save_weights(path, saved)
    read = safetensors.numpy.load_file(path)
    padding = {name for name in read if name.startswith("__padding__.")}
    assert read.keys() - padding == saved.keys()
    for name, tensor in saved.items():
        assert read[name].dtype == tensor.dtype
        np.testing.assert_array_equal(read[name], tensor)
    assert all(read[name].nbytes < 64 and not read[name].any() for name in padding)


def test_no_padding_tensor_without_need(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.zeros((4, 16), np.float32), "b": np.zeros(3, np.int8)})
    assert safetensors.numpy.load_file(path).keys() == {"a", "b"}


def test_reads_what_the_safetensors_library_writes(tmp_path):
    path = tmp_path / "w.safetensors"
    saved = tensors()
    safetensors.numpy.save_file(saved, path, metadata={"format": "np"})
    mapped = map_weights(path)
    for name, tensor in saved.items():
        np.testing.assert_array_equal(mapped[name], tensor)


def test_same_bytes_in_any_order(tmp_path):
    saved = tensors()
    save_weights(tmp_path / "a", saved)
    save_weights(tmp_path / "b", dict(reversed(saved.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_strides_and_byte_order(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    save_weights(tmp_path / "w", {"t": base.T, "big": base.astype(">f4"), "sliced": base[:, ::2]})
    mapped = map_weights(tmp_path / "w")
    np.testing.assert_array_equal(mapped["t"], base.T)
    np.testing.assert_array_equal(mapped["big"], base)
    np.testing.assert_array_equal(mapped["sliced"], base[:, ::2])


def test_bfloat16_keeps_its_bits(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1.5, -2.0, 3.25], ml_dtypes.bfloat16)
    save_weights(tmp_path / "w", {"b": values})
    assert [info.dtype for info in read_header(tmp_path / "w")] == ["bfloat16"]
    mapped = map_weights(tmp_path / "w")["b"]
    assert mapped.dtype == np.uint16
    np.testing.assert_array_equal(mapped, values.view(np.uint16))


def test_writing_to_a_mapped_tensor_leaves_the_file_alone(tmp_path):
    path = tmp_path / "w"
    save_weights(path, {"a": np.zeros(16, np.float32)})
    before = path.read_bytes()
    mapped = map_weights(path)["a"]
    mapped[:] = 1
    assert path.read_bytes() == before
    assert not map_weights(path)["a"].any()


def test_no_tensors(tmp_path):
    save_weights(tmp_path / "w", {})
    assert map_weights(tmp_path / "w") == {}


@pytest.mark.parametrize(
    ("tensor", "name"),
    [(np.zeros(2, np.complex64), "c"), (np.array(["a"]), "s"), (np.zeros(2), "__metadata__")],
)
def test_what_cannot_be_stored(tmp_path, tensor, name):
    with pytest.raises(ValueError, match=name):
        save_weights(tmp_path / "w", {name: tensor})
    assert list(tmp_path.iterdir()) == []


def _file(tmp_path, header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]}},
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}},
        {"a": {"dtype": "F9", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": 1},
        {"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}, "b": {"dtype": "F64"}},
        [],
        b"{",
        b"\xff",
    ],
)
def test_damaged_header(tmp_path, header):
    with pytest.raises(ArtifactError, match="damaged"):
        map_weights(_file(tmp_path, header))


@pytest.mark.parametrize("size", [0, 4, 8, 12])
def test_truncated(tmp_path, size):
    path = tmp_path / "w"
    save_weights(path, {"a": np.zeros(16, np.float32)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match="damaged"):
        read_header(path)


def test_inside_a_larger_file(tmp_path):
    save_weights(tmp_path / "w", {"a": np.arange(5, dtype=np.int32)})
    data = (tmp_path / "w").read_bytes()
    (tmp_path / "big").write_bytes(bytes(128) + data + bytes(10))
    region = Region(path=tmp_path / "big", offset=128, size=len(data))
    np.testing.assert_array_equal(map_weights(region)["a"], np.arange(5))
    assert map_weights(region)["a"].ctypes.data % 64 == 0
