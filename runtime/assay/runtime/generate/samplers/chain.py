"""Samplers one after another, and the draw at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import ArtifactError, UsageError
from assay.runtime.generate.samplers import SAMPLERS
from assay.runtime.generate.samplers.candidates import Candidates, Distribution
from assay.runtime.generate.samplers.greedy import Greedy
from assay.runtime.generate.samplers.sampler import Sampler

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Chain", "make_chain"]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Samplers in the order in which they are applied."""

    samplers: tuple[Sampler, ...]

    @property
    def greedy(self) -> bool:
        """Whether the same token comes whatever the seed."""
        return any(isinstance(sampler, Greedy) for sampler in self.samplers)

    def distribution(self, logits: npt.NDArray[np.float32], history: npt.NDArray[np.int64]) -> Distribution:
        """What the next token is drawn from: logits are float32 ``[vocabulary]``, history is all tokens.

        Raises ArtifactError where the highest logit is not finite, or some are NaN.
        """
        if not math.isfinite(logits.max()):
            raise ArtifactError(
                "The model gave logits that are not finite.",
                hint="Its weights may be damaged; compare it with ONNX Runtime's: assay verify ARTIFACT.",
            )
        candidates = Candidates(logits=logits)
        for sampler in self.samplers:
            candidates = sampler.apply(candidates, history)
        return candidates.distribution()

    def draw(
        self,
        logits: npt.NDArray[np.float32],
        history: npt.NDArray[np.int64],
        generator: np.random.Generator,
    ) -> int:
        """One token of ``distribution``."""
        if len(self.samplers) == 1 and self.greedy:
            token = int(logits.argmax())
            if math.isfinite(logits[token]):  # otherwise the distribution says what is wrong
                return token
        return self.distribution(logits, history).draw(generator)


def make_chain(settings: Mapping[str, float | None]) -> Chain:
    """The chain for settings by the names of samplers; None and a sampler's neutral number leave it out.

    Without a setting that asks for a draw, or with a temperature of 0, the most likely token is taken. Raises
    UnknownNameError for a name that no sampler has, and UsageError for a number out of its range.
    """
    given = {
        SAMPLERS.canonical_name(name): _number(name, value)
        for name, value in settings.items()
        if value is not None
    }
    draws = any(SAMPLERS[name].draws for name in given) and given.get("temperature") != 0
    samplers: list[Sampler] = []
    for name, kind in SAMPLERS.items():
        value = given.get(name)
        if value is None or value == kind.neutral:
            continue
        sampler = kind.make(value)
        if draws or not kind.draws:
            samplers.append(sampler)
    if not draws:
        samplers.append(Greedy())
    return Chain(samplers=tuple(samplers))


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UsageError(f"{name} must be a number, not {value!r}.")
    return value
