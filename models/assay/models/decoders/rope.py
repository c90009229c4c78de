"""Rotary position embeddings (Su et al., arXiv:2104.09864): frequencies, their scalings, and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from assay.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Llama3Scaling", "Rope", "RopeFactors", "RopeScaling", "YarnScaling", "rotary_tables"]


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1: long waves are slowed by ``factor``, short ones kept, with a ramp in between.

    As ``apply_scaling`` in github.com/meta-llama/llama-models. ``original_context`` is in tokens. Raises
    ModelError where the ramp has no length.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int

    def __post_init__(self) -> None:
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ModelError(
                f"Llama 3's scaling needs a high_freq_factor above its low_freq_factor, not "
                f"{self.high_frequency_factor} and {self.low_frequency_factor}."
            )


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (Peng et al., arXiv:2309.00071): as Llama3Scaling, with a ramp over the number of turns.

    ``beta_fast`` and ``beta_slow`` are turns within ``original_context`` tokens.
    """

    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RopeFactors:
    """One divisor for each frequency, as LongRoPE (arXiv:2402.13753) and GGUF's ``rope_freqs`` have."""

    factors: tuple[float, ...]


RopeScaling: TypeAlias = Llama3Scaling | YarnScaling | RopeFactors


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotation of the first ``dim`` elements of a head: element i with element i + dim/2.

    The angle at position p is ``p / (linear_factor * theta ** (2i / dim))`` before ``scaling``; cosines and
    sines are multiplied by ``magnitude``.

    Raises ModelError for numbers that give no angles.
    """

    theta: float
    dim: int
    linear_factor: float = 1.0
    scaling: RopeScaling | None = None
    magnitude: float = 1.0

    def __post_init__(self) -> None:
        if self.theta <= 1 or self.linear_factor <= 0:
            raise ModelError(
                f"Rotary embeddings need theta above 1 and a positive factor, not {self.theta} and "
                f"{self.linear_factor}."
            )


def rotary_tables(
    rope: Rope, positions: int, factors: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cosines and sines, float32 [positions, dim/2] each, of the angles of every position.

    ``factors`` [dim/2] divides the frequencies, where the source has it among its weights. Angles are
    products of float32 numbers, as in the PyTorch implementations that models are trained with.
    """
    import numpy as np

    exponents = np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)
    waves = np.exp(exponents.astype(np.float64) * -math.log(rope.theta)).astype(np.float32)
    frequencies = _scale(waves, rope) / np.float32(rope.linear_factor)
    if factors is not None:
        frequencies = frequencies / factors
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies[None, :]
    magnitude = np.float32(rope.magnitude)
    return np.cos(angles) * magnitude, np.sin(angles) * magnitude


def _scale(frequencies: npt.NDArray[np.float32], rope: Rope) -> npt.NDArray[np.float32]:
    import numpy as np

    match rope.scaling:
        case None:
            return frequencies
        case RopeFactors(factors=factors):
            return np.divide(frequencies, np.array(factors, np.float32), dtype=np.float32)
        case Llama3Scaling() as llama3:
            return _llama3(frequencies, llama3)
        case YarnScaling() as yarn:
            return _yarn(frequencies, rope, yarn)


def _llama3(frequencies: npt.NDArray[np.float32], scaling: Llama3Scaling) -> npt.NDArray[np.float32]:
    import numpy as np

    turns = scaling.original_context * frequencies / np.float32(2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    scaled: npt.NDArray[np.float32] = ((1 - kept) * frequencies / scaling.factor + kept * frequencies).astype(
        np.float32
    )
    return scaled


def _yarn(frequencies: npt.NDArray[np.float32], rope: Rope, scaling: YarnScaling) -> npt.NDArray[np.float32]:
    import numpy as np

    def frequency_with(turns: float) -> float:
        position = scaling.original_context / (turns * 2 * math.pi)
        return rope.dim * math.log(position) / (2 * math.log(rope.theta))

    low = max(math.floor(frequency_with(scaling.beta_fast)), 0)
    high = min(math.ceil(frequency_with(scaling.beta_slow)), rope.dim - 1)
    span = max(high - low, 0.001)
    kept = 1 - np.clip((np.arange(rope.dim // 2, dtype=np.float32) - low) / np.float32(span), 0.0, 1.0)
    scaled: npt.NDArray[np.float32] = ((1 - kept) * frequencies / scaling.factor + kept * frequencies).astype(
        np.float32
    )
    return scaled
