"""PyTorch in eager mode, through transformers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.benchmarks.llm.engine import LanguageFiles, LanguageSession
from assay.errors import BenchmarkError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.providers import RandomDecoder

__all__ = ["PyTorchDecoder"]


@dataclass(frozen=True, kw_only=True)
class PyTorchDecoder:
    """The transformers model with float32 weights: dequantized at load, or drawn as the zoo draws them."""

    name: str = "torch"
    note: str = "transformers in eager mode, float32 weights and cache"

    def unavailable(self, files: LanguageFiles) -> str | None:
        """Needs torch and transformers, and a GGUF file, a Hugging Face folder or a GPT-2 of the zoo."""
        # transformers reads GGUF files through accelerate.
        readers = () if files.gguf is None else ("accelerate",)
        for package in ("torch", "transformers", *readers):
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed (extra: torch)"
        if files.gguf is None and files.folder is None and _random_gpt2(files) is None:
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
        drawn = _random_gpt2(files)
        if drawn is not None:
            return _Session(_gpt2(drawn))
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


def _random_gpt2(files: LanguageFiles) -> RandomDecoder | None:
    """The provider of a GPT-2 that the registry knows by its name and whose weights are drawn."""
    from assay.models.providers import RandomDecoder
    from assay.models.registry import models

    if files.gguf is not None or files.folder is not None or files.name not in models():
        return None
    provider = models()[files.name].provider
    if isinstance(provider, RandomDecoder) and provider.config.architecture == "gpt2":
        return provider
    return None


def _gpt2(provider: RandomDecoder) -> Any:
    """transformers' GPT-2 with the weights of ``provider``. Raises BenchmarkError for variations of it."""
    import torch
    import transformers

    from assay.models.decoders.torch_source import config_from_torch
    from assay.models.providers.random_decoder import RandomWeightsOf

    sizes = provider.config
    config = transformers.GPT2Config(
        vocab_size=sizes.vocabulary,
        n_positions=sizes.context_length,
        n_embd=sizes.hidden,
        n_layer=sizes.layers,
        n_head=sizes.heads,
        n_inner=sizes.ffn,
        layer_norm_epsilon=sizes.norm_epsilon,
    )
    if config_from_torch(config) != sizes:
        raise BenchmarkError("transformers has no GPT-2 of these variations.")
    weights = RandomWeightsOf(sizes, provider.seed)
    model = transformers.GPT2LMHeadModel(config).eval()
    state = {name: torch.from_numpy(weights.read(name)) for name in weights.names()}
    found = model.load_state_dict(state, strict=False)
    # The head is the embedding, and its name is one more name of it.
    if found.unexpected_keys or set(found.missing_keys) - {"lm_head.weight"}:
        raise BenchmarkError("The weights are not those of transformers' GPT-2.")
    return model


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
