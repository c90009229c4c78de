"""Weights in 8 bits, a scale a channel; activations in 8 bits as they come, a scale a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from assay.compile.schemes.scheme import Scheme, SchemeOptions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from assay.compile.quantize.channels import ChannelQuantized
    from assay.compile.quantize.sites import Weight

__all__ = ["SCHEME", "DynamicScheme"]


@dataclass(frozen=True, kw_only=True)
class DynamicScheme(Scheme):
    """Products of integers: one scale a channel of a weight, one a row of activations. Tables as in int8.

    ``smooth``: columns in which activations are large are made smaller, the weights that meet them larger.
    """

    smooth: bool = False

    @property
    def needs_samples(self) -> bool:
        """Which columns are large, samples tell."""
        return self.smooth

    def option_words(self) -> dict[str, SchemeOptions]:
        """Smoothing."""
        return {"smooth": SchemeOptions(smooth=True)}

    def with_options(self, options: SchemeOptions) -> Self:
        """The scheme with or without smoothing."""
        smooth = bool(options.smooth)
        return replace(self, name=f"{SCHEME.name}-smooth" if smooth else SCHEME.name, smooth=smooth)

    @property
    def rounds_activations(self) -> bool:
        """To 8 bits, row by row."""
        return True

    def for_weight(self, weight: Weight) -> Scheme:
        """Groups of 8 bits for a table, also where it is the matrix of the head; float32 for convolutions."""
        from assay.compile.quantize.sites import Kind
        from assay.compile.schemes import schemes

        if not weight.is_matrix:
            return schemes()["f32"]
        return self.for_table() if Kind.TABLE in weight.kinds else self

    def for_table(self) -> Scheme:
        """Eight bits in groups."""
        from assay.compile.schemes import schemes

        return schemes()["int8"]

    def misfit(self, weight: Weight) -> str | None:
        """Why a weight cannot be stored so."""
        from assay.compile.quantize.sites import Kind

        if not weight.is_matrix:
            return "it is no matrix of a product"
        return "it is a table" if Kind.TABLE in weight.kinds else None

    def encode(
        self, values: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None = None
    ) -> ChannelQuantized:
        """``values`` [outputs, inputs] as codes of seven bits and a sign, and scales."""
        from assay.compile.quantize.channels import quantize_channels

        return quantize_channels(values)

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of codes, and of a float32 scale for each output."""
        rows, columns = shape
        return rows * columns + 4 * rows


SCHEME = DynamicScheme(
    name="int8-dynamic",
    description="8-bit weights, one scale a channel, 8-bit activations, one scale a row, as they come",
    bits=8,
)
