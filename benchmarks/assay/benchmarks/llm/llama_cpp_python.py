"""llama.cpp on the model's GGUF file, through the C interface that llama-cpp-python binds.

Source: ``include/llama.h`` of llama.cpp. The interface for Python users adds sampling and copies, so it is
left out of the figures.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.benchmarks.llm.engine import LanguageFiles, LanguageSession
from assay.errors import BenchmarkError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["LlamaCpp"]

_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class LlamaCpp:
    """llama.cpp as llama-cpp-python builds it, with its default cache of float16."""

    name: str = "llama.cpp"
    note: str = "the GGUF file, its C interface, float16 cache, batches of up to 512 tokens"

    def unavailable(self, files: LanguageFiles) -> str | None:
        """Needs the package, and a model that came as GGUF."""
        if importlib.util.find_spec("llama_cpp") is None:
            return "llama-cpp-python is not installed"
        if files.gguf is None:
            return "the model did not come as a GGUF file"
        return None

    def version(self) -> str:
        """The version of llama-cpp-python, which says which llama.cpp it carries."""
        return importlib.metadata.version("llama-cpp-python")

    def load(self, files: LanguageFiles, threads: int, context: int, sequences: int) -> LanguageSession:
        """The file, mapped as by default."""
        return _Session(str(files.gguf), threads, context, sequences)

    def size_bytes(self, files: LanguageFiles) -> int | None:
        """The GGUF file."""
        return files.gguf.stat().st_size if files.gguf is not None else None


class _Session:
    def __init__(self, path: str, threads: int, context: int, sequences: int) -> None:
        import ctypes

        import llama_cpp

        self._api = llama_cpp
        # Kept: the library calls it for as long as it is loaded.
        self._silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise BenchmarkError(f"llama.cpp cannot load {path}.")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = context * sequences
        settings.n_batch = settings.n_ubatch = _BATCH
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise BenchmarkError(f"llama.cpp has no room for {sequences} sequences of {context} tokens.")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocabulary = int(llama_cpp.llama_vocab_n_tokens(vocabulary))
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self._lengths = [0] * sequences

    def advance(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        import numpy as np

        found: list[npt.NDArray[Any]] = []
        if len(tokens[0]) == 1:
            found = self._decode([(number, own[0], True) for number, own in enumerate(tokens)])
        else:
            for number, own in enumerate(tokens):
                for start in range(0, len(own), _BATCH):
                    part = own[start : start + _BATCH]
                    ends = start + len(part) == len(own)
                    rows = [(number, token, ends and i == len(part) - 1) for i, token in enumerate(part)]
                    found += self._decode(rows)
        return np.stack(found)

    def _decode(self, rows: Sequence[tuple[int, int, bool]]) -> list[npt.NDArray[Any]]:
        """Run rows of sequence, token and whether logits are wanted; copies of those logits."""
        import numpy as np

        batch = self._batch
        batch.n_tokens = len(rows)
        for index, (number, token, given) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = self._lengths[number]
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = number
            batch.logits[index] = given
            self._lengths[number] += 1
        code = self._api.llama_decode(self._context, batch)
        if code:
            raise BenchmarkError(f"llama.cpp refuses a batch of {len(rows)} tokens (code {code}).")
        wanted = [index for index, (_, _, given) in enumerate(rows) if given]
        found = (self._api.llama_get_logits_ith(self._context, index) for index in wanted)
        return [np.ctypeslib.as_array(logits, (self._vocabulary,)).copy() for logits in found]

    def reset(self) -> None:
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        self._lengths = [0] * len(self._lengths)
