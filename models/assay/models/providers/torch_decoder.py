"""A decoder model that is a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.interface import decoder_inputs, representative_inputs
from assay.models.decoders.spec import DecoderSpec
from assay.models.spec import ModelSpec, Weights

__all__ = ["TorchDecoder", "spec_from_torch"]


@dataclass(frozen=True, kw_only=True)
class TorchDecoder:
    """What ``factory`` gives: a causal language model of transformers, or a state dict and a configuration.

    The configuration of such a pair is the object of a ``config.json``. ``factory`` imports torch itself.
    ``tokenizer`` is the path of a ``tokenizer.json``, ``chat_template`` the text of a Jinja template.
    """

    factory: Callable[[], Any]
    tokenizer: Path | None = None
    chat_template: str | None = None

    def onnx_path(self, folder: Path) -> Path:
        """Path of the canonical decoder below ``folder``.

        Raises ModelError for an architecture that is not known or tensors that do not fit it,
        MissingDependencyError without torch.
        """
        from assay.models.decoders.export import export_decoder
        from assay.models.decoders.mapping import Naming
        from assay.models.decoders.torch_source import TorchWeights

        source, values = self._make()
        path = folder / "decoder.onnx"
        export_decoder(_config(values), TorchWeights(source), path, naming=Naming.HF)
        return path

    def config(self) -> DecoderConfig:
        """The sizes and variations of the model; raises ModelError."""
        return _config(self._make()[1])

    def decoder(self) -> DecoderSpec:
        """The sizes, and the text side as far as the model and this provider have it; raises ModelError."""
        values = self._make()[1]
        eos = values.get("eos_token_id")
        return _config(values).spec(
            bos_id=values.get("bos_token_id"),
            eos_ids=() if eos is None else tuple(eos) if isinstance(eos, list | tuple) else (eos,),
            tokenizer=self.tokenizer,
            chat_template=self.chat_template,
        )

    def _make(self) -> tuple[Any, Mapping[str, Any]]:
        """A module or state dict, and its configuration."""
        made = self.factory()
        if isinstance(made, tuple):
            source, values = made
            return source, values
        from assay.models.decoders.torch_source import values_from_torch

        return made, values_from_torch(made)


def _config(values: Mapping[str, Any]) -> DecoderConfig:
    from assay.models.decoders.read_config import config_from_hf

    return config_from_hf(values)


def spec_from_torch(
    name: str,
    model: Any,
    *,
    tokenizer: Path | None = None,
    chat_template: str | None = None,
    licence: str = "unknown",
) -> ModelSpec:
    """The specification of ``model``, as ``TorchDecoder.factory`` would give it; ready to build.

    Raises ModelError for an architecture that is not known.
    """
    provider = TorchDecoder(factory=lambda: model, tokenizer=tokenizer, chat_template=chat_template)
    config = provider.config()
    return ModelSpec(
        name=name,
        description=f"A PyTorch model of the architecture {config.architecture}.",
        provider=provider,
        inputs=decoder_inputs(config),
        weights=Weights.TRAINED,
        licence=licence,
        representative_inputs=representative_inputs(config),
        needs_torch=True,
        decoder=provider.decoder(),
        tags=frozenset({"text", "transformer", "language-model", "decoder"}),
    )
