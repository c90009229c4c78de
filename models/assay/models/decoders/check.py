"""Which stored tensors are which weights, checked as a whole before any of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from assay.errors import ModelError
from assay.models.decoders.architectures import ARCHITECTURES
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.mapping import Architecture, Naming, Part, Role, Weight
from assay.models.decoders.weights import DecoderWeights

__all__ = ["ResolvedPart", "ResolvedWeights", "check_weights"]

# A model that is none at all lacks everything: as many lines of each kind are read.
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class ResolvedPart:
    """A stored tensor under its name in the source."""

    name: str
    part: Part


class ResolvedWeights:
    """The stored tensors of every weight that the model has."""

    def __init__(self, parts: Mapping[tuple[Role, int | None], tuple[ResolvedPart, ...]]) -> None:
        self._parts = dict(parts)

    def parts(self, role: Role, layer: int | None = None) -> tuple[ResolvedPart, ...]:
        """The tensors whose rows, one after the other, are this weight; none where the model lacks it."""
        return self._parts.get((role, layer), ())


def check_weights(config: DecoderConfig, weights: DecoderWeights, naming: Naming) -> ResolvedWeights:
    """Match the tensors of ``weights`` with the table of the model's architecture.

    Raises ModelError with every tensor that is missing, unexpected or of the wrong shape.
    """
    architecture = ARCHITECTURES[config.architecture]
    stored = _Stored(architecture, weights, naming)
    found: dict[tuple[Role, int | None], tuple[ResolvedPart, ...]] = {}
    missing: list[str] = []
    wrong: list[str] = []
    used: set[str] = set()
    for weight, layer in _wanted(config, architecture):
        alternatives = [stored.resolve(parts, layer) for parts in weight.sources.get(naming, ())]
        if not alternatives:
            if not weight.optional:
                missing.append(f"{weight.role.value.format(layer=layer)} ({naming} files do not have it)")
            continue
        # Where no alternative is whole, the one with the fewest gaps tells most.
        parts = min(alternatives, key=lambda parts: sum(part.name not in stored.names for part in parts))
        gaps = [part.name for part in parts if part.name not in stored.names]
        if gaps and weight.optional and len(gaps) == len(parts):
            continue
        missing += gaps
        used.update(part.name for part in parts)
        wrong += filter(
            None, (_wrong_shape(config, part, weights) for part in parts if part.name not in gaps)
        )
        found[weight.role, layer] = parts
    patterns = architecture.ignored + (_heads(architecture, naming) if config.tied else ())
    unexpected = [
        name
        for name in weights.names()
        if name not in used and not any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    if missing or wrong or unexpected:
        raise _refusal(config, missing, wrong, unexpected)
    return ResolvedWeights(found)


class _Stored:
    """The names of a source, some of which may lack the prefix that its naming gives them."""

    def __init__(self, architecture: Architecture, weights: DecoderWeights, naming: Naming) -> None:
        self.names = frozenset(weights.names())
        prefix = architecture.prefix if naming is Naming.HF else ""
        self._dropped = "" if any(name.startswith(prefix) for name in self.names) else prefix

    def resolve(self, parts: tuple[Part, ...], layer: int | None) -> tuple[ResolvedPart, ...]:
        return tuple(
            ResolvedPart(name=part.name.format(layer=layer).removeprefix(self._dropped), part=part)
            for part in parts
        )


def _wanted(config: DecoderConfig, architecture: Architecture) -> Iterator[tuple[Weight, int | None]]:
    for weight in architecture.weights:
        if not weight.condition(config):
            continue
        if not weight.role.per_layer:
            yield weight, None
            continue
        for layer in range(config.layers):
            yield weight, layer


def _heads(architecture: Architecture, naming: Naming) -> tuple[str, ...]:
    """Names of the head, which a tied model may store a second time."""
    return tuple(
        part.name
        for weight in architecture.weights
        if weight.role is Role.HEAD
        for parts in weight.sources.get(naming, ())
        for part in parts
    )


def _wrong_shape(config: DecoderConfig, resolved: ResolvedPart, weights: DecoderWeights) -> str | None:
    expected = tuple(config.size(size) for size in resolved.part.shape)
    shape = weights.shape(resolved.name)
    if shape == expected:
        return None
    meaning = ", ".join(f"{size.value} = {config.size(size)}" for size in resolved.part.shape)
    return f"{resolved.name} has {list(shape)}, not [{meaning}]"


def _refusal(
    config: DecoderConfig, missing: list[str], wrong: list[str], unexpected: list[str]
) -> ModelError:
    sections = [
        f"{title} ({len(lines)}): {', '.join(lines[:_SHOWN])}{', ...' if len(lines) > _SHOWN else ''}"
        for title, lines in (("missing", missing), ("of the wrong shape", wrong), ("unexpected", unexpected))
        if lines
    ]
    return ModelError(
        f"The tensors are not those of a {config.architecture} model of {config.layers} layers: "
        + "; ".join(sections)
        + ".",
        hint="The configuration may be that of another model, or a file of the weights may be missing.",
    )
