from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.errors import ExternalDataError, ModelError
from assay.models.export.safe_load import load_safely, tensors_of


@pytest.fixture
def external(linear: onnx.ModelProto, tmp_path: Path) -> Path:
    """``linear`` with both tensors in model/weights.bin, and a file outside that must not be read."""
    (tmp_path / "secret.bin").write_bytes(b"\x01" * 4096)
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "linear.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(linear)  # Saving with external data takes the data out of the model in memory.
    onnx.save_model(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


@pytest.fixture
def relocate(external: Path) -> Callable[..., Path]:
    """Change entries of the external data of the tensor "w"; None removes an entry."""

    def change(**entries: str | None) -> Path:
        model = onnx.load_model(external, load_external_data=False)
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
        kept = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in kept.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)
        external.write_bytes(model.SerializeToString())
        return external

    return change


def test_reads_a_file_with_all_inside(linear: onnx.ModelProto, linear_file: Path) -> None:
    loaded = load_safely(linear_file)
    assert loaded.model == linear
    assert loaded.digest.startswith("sha256:")


def test_reads_external_data(linear: onnx.ModelProto, external: Path) -> None:
    loaded = load_safely(external)
    for wanted, found in zip(linear.graph.initializer, loaded.model.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(wanted), onnx.numpy_helper.to_array(found))
        assert not found.external_data


def test_digest_covers_external_data(external: Path) -> None:
    before = load_safely(external).digest
    data = external.parent / "weights.bin"
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    assert load_safely(external).digest != before


def test_external_data_in_a_folder_below(relocate: Callable[..., Path], external: Path) -> None:
    below = external.parent / "below"
    below.mkdir()
    (below / "w.bin").write_bytes((external.parent / "weights.bin").read_bytes())
    load_safely(relocate(location="below/w.bin"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 this is a ZIP file", id="zip"),
        pytest.param(b"a line of text\n" * 20, id="text"),
        pytest.param(b"\x00" * 64, id="zeros"),
        pytest.param(b'{"model": "json"}', id="json"),
    ],
)
def test_refuses_what_is_not_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"not an ONNX model|empty file"):
        load_safely(path)


def test_refuses_a_file_cut_anywhere(linear_file: Path) -> None:
    content = linear_file.read_bytes()
    for length in range(0, len(content) - 1, 7):
        linear_file.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"truncated|empty file"):
            load_safely(linear_file)


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read: No such file"):
        load_safely(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "below/../../secret.bin",
        "./../secret.bin",
        "..\\secret.bin",
        "C:/secret.bin",
        "/etc/hostname",
        "//etc/hostname",
        ".",
        "",
        "weights.bin\0.txt",
    ],
)
def test_refuses_a_location_outside(location: str, relocate: Callable[..., Path]) -> None:
    with pytest.raises(ExternalDataError, match="'w'"):
        load_safely(relocate(location=location))


def test_refuses_an_absolute_location_even_inside(relocate: Callable[..., Path], external: Path) -> None:
    with pytest.raises(ExternalDataError, match=r"'w' is not a relative path"):
        load_safely(relocate(location=str(external.parent / "weights.bin")))


def test_refuses_a_symbolic_link(external: Path) -> None:
    data = external.parent / "weights.bin"
    data.unlink()
    data.symlink_to("../secret.bin")
    with pytest.raises(ExternalDataError, match=r"'\w' is behind a symbolic link"):
        load_safely(external)


def test_refuses_a_linked_folder(relocate: Callable[..., Path], external: Path) -> None:
    (external.parent / "below").symlink_to(external.parent.parent)
    with pytest.raises(ExternalDataError, match=r"'w' is behind a symbolic link"):
        load_safely(relocate(location="below/secret.bin"))


def test_refuses_a_hard_link(external: Path) -> None:
    data = external.parent / "weights.bin"
    data.unlink()
    data.hardlink_to(external.parent.parent / "secret.bin")
    with pytest.raises(ExternalDataError, match=r"'\w' is a hard link"):
        load_safely(external)


def test_refuses_a_named_pipe_without_waiting(external: Path) -> None:
    data = external.parent / "weights.bin"
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(ExternalDataError, match=r"'\w' is not a regular file"):
        load_safely(external)


def test_refuses_a_folder_as_data(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    (external.parent / "weights.bin").mkdir()
    with pytest.raises(ExternalDataError, match=r"'\w' is not a regular file"):
        load_safely(external)


def test_refuses_missing_data(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ExternalDataError, match=r"'weights.bin' of the tensor '\w' is missing"):
        load_safely(external)


def test_refuses_data_cut_short(external: Path) -> None:
    data = external.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ExternalDataError, match=r"has \d+ bytes, but bytes \d+ to \d+ are needed"):
        load_safely(external)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "1000000"}, "are needed"),
        ({"offset": "-4"}, "not a number"),
        ({"offset": "1e3"}, "not a number"),
        ({"length": "47"}, "47 bytes where its shape needs 48"),
        ({"length": "9" * 30}, "where its shape needs 48"),
        ({"length": "-1"}, "not a number"),
        ({"length": "²"}, "not a number"),
    ],
)
def test_refuses_wrong_ranges(entries: dict[str, str], message: str, relocate: Callable[..., Path]) -> None:
    with pytest.raises(ExternalDataError, match=message):
        load_safely(relocate(**entries))


def test_length_may_be_left_out(relocate: Callable[..., Path]) -> None:
    load_safely(relocate(length=None))


def test_refuses_external_data_without_the_flag(linear: onnx.ModelProto, tmp_path: Path) -> None:
    tensor = linear.graph.initializer[0]
    tensor.external_data.add(key="location", value="../../etc/hostname")
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear.SerializeToString())
    with pytest.raises(ExternalDataError, match="'w'"):
        load_safely(path)


def test_finds_tensors_in_subgraphs_and_functions(linear: onnx.ModelProto) -> None:
    def constant(name: str) -> onnx.NodeProto:
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [1.0])
        return onnx.helper.make_node("Constant", [], [f"{name}_out"], value=tensor)

    branch = onnx.helper.make_graph([constant("deep")], "branch", [], [])
    linear.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=branch))
    linear.functions.append(onnx.helper.make_function("own", "f", [], [], [constant("inner")], []))
    names = {tensor.name for tensor in tensors_of(linear)}
    assert {"w", "b", "deep", "inner"} <= names
