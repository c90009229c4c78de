"""Small GGUF files, written by the ``gguf`` package's own writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

WriteGguf = Callable[..., Path]


@pytest.fixture
def write_gguf(tmp_path: Path) -> WriteGguf:
    """Writes arrays, each as (values, type), and key-values to a GGUF file, whose path it gives."""

    def write(
        tensors: Mapping[str, tuple[np.ndarray[Any, Any], str]],
        metadata: Mapping[str, Any] | None = None,
        name: str = "model.gguf",
    ) -> Path:
        path = tmp_path / name
        writer = GGUFWriter(path, "llama")
        for key, value in (metadata or {}).items():
            _add(writer, key, value)
        for key, (values, kind) in tensors.items():
            type_ = GGMLQuantizationType[kind]
            if kind in ("F32", "F16"):
                writer.add_tensor(key, values.astype({"F32": np.float32, "F16": np.float16}[kind]))
            else:
                # The writer works the shape out from the bytes of the rows.
                writer.add_tensor(key, quantize(values.astype(np.float32), type_), raw_dtype=type_)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
