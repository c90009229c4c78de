"""Seeded random weights that keep a deep network's activations in range, equal on every machine.

NumPy draws them (its PCG64 streams are specified, torch's generators differ between CPUs and versions), each
tensor from a stream of its own, so that adding a layer leaves the other layers' numbers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Role", "draw"]


class Role(StrEnum):
    """What a weight tensor does, which decides the distribution that it is drawn from."""

    KERNEL = "kernel"  # of a convolution or matrix multiplication
    BIAS = "bias"  # added to what a kernel gives
    SCALE = "scale"  # of a normalisation; positive, around 1
    SHIFT = "shift"  # of a normalisation; around 0
    MEAN = "mean"  # running mean of a batch normalisation; around 0
    VARIANCE = "variance"  # running variance of a batch normalisation; positive, around 1
    EMBEDDING = "embedding"  # a table of vectors, or a learned token


def draw(
    name: str, shape: Sequence[int], role: Role, *, seed: int, fan_in: int = 1, gain: float = 1.0
) -> npt.NDArray[np.float32]:
    """Float32 weights of ``shape`` from the stream of ``name`` and ``seed``.

    A kernel has the standard deviation ``sqrt(gain / fan_in)``: a gain of 2 keeps the second moment through a
    ReLU (He), a gain of 1 keeps it without one. A scale is uniform within 20% of ``gain``. No tensor is
    constant, so that a mistake in layout, or a normalisation folded wrongly, shows in the outputs.
    """
    import numpy as np

    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))
    if role in (Role.SCALE, Role.VARIANCE):
        spread = generator.random(tuple(shape), dtype=np.float32)
        return (np.float32(0.8) + np.float32(0.4) * spread) * np.float32(gain)
    deviation = {
        Role.KERNEL: (gain / fan_in) ** 0.5,
        Role.BIAS: 0.05,
        Role.SHIFT: 0.05,
        Role.MEAN: 0.1,
        Role.EMBEDDING: 0.02,
    }[role]
    normal = generator.standard_normal(tuple(shape), dtype=np.float32)
    normal *= np.float32(deviation)
    return normal
