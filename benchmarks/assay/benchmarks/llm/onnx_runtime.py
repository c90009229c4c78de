"""ONNX Runtime on the canonical decoder ONNX, its cache kept in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.benchmarks.llm.engine import LanguageFiles, LanguageSession
from assay.benchmarks.peers import onnx_runtime

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["OnnxRuntimeDecoder", "with_fast_products"]


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeDecoder:
    """ONNX Runtime's CPU provider, bound as onnxruntime-genai binds it: past and present are one buffer."""

    name: str = "onnxruntime"
    note: str = (
        "the canonical decoder ONNX, float zero points split from products; past and present in one float32 "
        "buffer; logits of every token"
    )

    def unavailable(self, files: LanguageFiles) -> str | None:
        """Needs the package, and the canonical ONNX."""
        return onnx_runtime.missing(files.canonical)

    def version(self) -> str:
        """ONNX Runtime's version."""
        return onnx_runtime.version()

    def load(self, files: LanguageFiles, threads: int, context: int, sequences: int) -> LanguageSession:
        """A session with its cache allocated."""
        return _Session(str(files.canonical), threads, context, sequences)

    def size_bytes(self, files: LanguageFiles) -> int | None:
        """The canonical ONNX with its external data."""
        return onnx_runtime.file_size(files.canonical)


def with_fast_products(files: LanguageFiles, folder: Path) -> LanguageFiles:
    """``files`` with the form of the canonical ONNX that ONNX Runtime is fast with, made in ``folder``.

    Of weights with float zero points alone: it would dequantize them whole for every token.
    """
    from assay.models.decoders.ort_form import write_ort_form

    target = folder / "onnxruntime.onnx"
    if files.canonical is None or not write_ort_form(files.canonical, target):
        return files
    return replace(files, canonical=target)


class _Session:
    def __init__(self, path: str, threads: int, context: int, sequences: int) -> None:
        import numpy as np
        import onnxruntime

        self._session = onnx_runtime.open_session(path, threads)
        self._binding = self._session.io_binding()
        # First, so that it is the first of the outputs.
        self._binding.bind_output("logits", "cpu")
        self._length, self._sequences = 0, sequences
        self._inputs = {each.name for each in self._session.get_inputs()}
        for each in self._session.get_inputs():
            if not each.name.startswith("past_key_values."):
                continue
            _, heads, _, size = each.shape
            empty = np.zeros((sequences, heads, context, size), np.float32)
            buffer = onnxruntime.OrtValue.ortvalue_from_numpy(empty)
            self._binding.bind_ortvalue_input(each.name, buffer)
            self._binding.bind_ortvalue_output(each.name.replace("past_key_values", "present"), buffer)

    def advance(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        import numpy as np

        ids = np.array(tokens, np.int64)
        count = ids.shape[1]
        total = self._length + count
        feeds = {"input_ids": ids, "attention_mask": np.ones((self._sequences, total), np.int64)}
        if "position_ids" in self._inputs:
            feeds["position_ids"] = np.tile(np.arange(self._length, total), (self._sequences, 1))
        for name, array in feeds.items():
            self._binding.bind_cpu_input(name, array)
        # Anew, because its shape depends on the number of tokens.
        self._binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(self._binding)
        self._length = total
        logits = self._binding.get_outputs()[0].numpy()
        return np.asarray(logits[:, -1, :], np.float32)

    def reset(self) -> None:
        self._length = 0
