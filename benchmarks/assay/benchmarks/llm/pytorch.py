"""PyTorch in eager mode, through transformers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.benchmarks.llm.engine import LanguageFiles, LanguageSession

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["PyTorchDecoder"]


@dataclass(frozen=True, kw_only=True)
class PyTorchDecoder:
    """The transformers model with float32 weights, those of a GGUF file dequantized at load."""

    name: str = "torch"
    note: str = "transformers in eager mode, float32 weights and cache"

    def unavailable(self, files: LanguageFiles) -> str | None:
        """Needs torch and transformers, and a model that came as GGUF or as a Hugging Face folder."""
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed (extra: torch)"
        if files.gguf is None and files.folder is None:
            return "the model came neither as a GGUF file nor as a Hugging Face folder"
        return None

    def version(self) -> str:
        """The versions of torch and transformers."""
        versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
        return ", ".join(versions)

    def load(self, files: LanguageFiles, threads: int, context: int, sequences: int) -> LanguageSession:
        """The model, without a look at any hub."""
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        options: dict[str, Any] = {"local_files_only": True, "dtype": torch.float32}
        place = files.folder
        if files.gguf is not None:
            place = files.gguf.parent
            options["gguf_file"] = files.gguf.name
        model = transformers.AutoModelForCausalLM.from_pretrained(str(place), **options).eval()
        return _Session(model)

    def size_bytes(self, files: LanguageFiles) -> int | None:
        """The files of the weights."""
        if files.gguf is not None:
            return files.gguf.stat().st_size
        folder: Path | None = files.folder
        return None if folder is None else sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class _Session:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None

    def advance(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        import torch

        with torch.inference_mode():
            given = self._model(
                input_ids=torch.tensor(tokens), past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
        self._cache = given.past_key_values
        logits: npt.NDArray[Any] = given.logits[:, -1].numpy()
        return logits

    def reset(self) -> None:
        self._cache = None
