"""A decoder of given sizes with seeded random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.decoders.architectures import ARCHITECTURES
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.mapping import Naming, Part, Transform
from assay.models.decoders.mapping import Role as WeightRole
from assay.models.providers.seeded import Role, draw

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["RandomDecoder", "RandomWeightsOf"]

_TABLES = (WeightRole.EMBEDDING, WeightRole.POSITION, WeightRole.HEAD)
_RESIDUAL = (WeightRole.OUTPUT, WeightRole.DOWN)


@dataclass(frozen=True, kw_only=True)
class RandomDecoder:
    """A decoder as ``config`` describes it, without a tokenizer."""

    config: DecoderConfig
    seed: int = 0

    def onnx_path(self, folder: Path) -> Path:
        """Path of the canonical decoder below ``folder``."""
        from assay.models.decoders.export import export_decoder

        path = folder / "decoder.onnx"
        export_decoder(self.config, RandomWeightsOf(self.config, self.seed), path, naming=Naming.HF)
        return path


class RandomWeightsOf:
    """Random float32 tensors under Hugging Face's names; satisfies ``DecoderWeights``.

    Matrices that add to the residual are smaller by the square root of twice the layers, as GPT-2 initializes
    them, so that the residual does not grow with the depth.
    """

    def __init__(self, config: DecoderConfig, seed: int = 0) -> None:
        self._config = config
        self._seed = seed
        self._parts = {name: (part, role) for name, part, role in _stored(config)}

    def names(self) -> Sequence[str]:
        """Names of all tensors, in the order of the architecture's table."""
        return tuple(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises KeyError."""
        return tuple(self._config.size(size) for size in self._parts[name][0].shape)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor, drawn anew and always the same. Raises KeyError."""
        part, role = self._parts[name]
        shape = self.shape(name)
        if role in _TABLES:
            return draw(name, shape, Role.EMBEDDING, seed=self._seed)
        if len(shape) == 2:
            fan_in = shape[0] if part.transform is Transform.TRANSPOSE else shape[1]
            gain = 1 / (2 * self._config.layers) if role in _RESIDUAL else 1.0
            return draw(name, shape, Role.KERNEL, seed=self._seed, fan_in=fan_in, gain=gain)
        if role.value.endswith(".bias"):
            return draw(name, shape, Role.BIAS, seed=self._seed)
        scale = draw(name, shape, Role.SCALE, seed=self._seed)
        return scale - 1 if part.transform is Transform.ADD_ONE else scale


def _stored(config: DecoderConfig) -> Iterator[tuple[str, Part, WeightRole]]:
    """Every tensor that the model must have: its name, its part of a weight, and the weight's role."""
    for weight in ARCHITECTURES[config.architecture].weights:
        if weight.optional or not weight.condition(config):
            continue
        for layer in range(config.layers) if weight.role.per_layer else [0]:
            for part in weight.sources[Naming.HF][0]:
                yield part.name.format(layer=layer), part, weight.role
