"""Configurations of sources: Hugging Face's ``config.json`` and the key-values of a GGUF file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from assay.errors import ModelError
from assay.models.decoders.architectures import ARCHITECTURES
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.fields import Fields
from assay.models.decoders.mapping import Architecture

__all__ = ["config_from_gguf", "config_from_hf"]

_CONFIG_JSON = "model's config.json"
_GGUF_HEADER = "GGUF header"


def config_from_hf(values: Mapping[str, Any]) -> DecoderConfig:
    """The configuration in ``values``, the object of a ``config.json``.

    Raises ModelError for an architecture that is not known (the message lists those that are), for a key that
    is missing or of another type, and for a variation that has no place in the canonical form.
    """
    fields = Fields(values, what=_CONFIG_JSON)
    known = {entry.model_type: entry for entry in ARCHITECTURES.values()}
    architecture = _find(fields.text("model_type"), known)
    if "quantization_config" in fields:
        raise ModelError(
            "The model's config.json has a quantization_config; checkpoints in that form are not read.",
            hint="Take the model's unquantized weights, or a GGUF file.",
        )
    return architecture.read_hf(fields)


def config_from_gguf(values: Mapping[str, Any], names: Iterable[str]) -> DecoderConfig:
    """The configuration in ``values``, the key-values of a GGUF file whose tensors are called ``names``.

    Raises ModelError as ``config_from_hf`` does.
    """
    fields = Fields(values, what=_GGUF_HEADER)
    known = {entry.gguf: entry for entry in ARCHITECTURES.values() if entry.gguf is not None}
    name = fields.text("general.architecture")
    architecture = _find(name, known)
    return architecture.read_gguf(fields.under(f"{name}."), frozenset(names))


def _find(name: str, known: Mapping[str, Architecture]) -> Architecture:
    if name not in known:
        raise ModelError(
            f"The architecture {name!r} is not known.",
            hint=f"Known architectures are {', '.join(sorted(known))}.",
        )
    return known[name]
