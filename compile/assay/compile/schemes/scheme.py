"""How weights are stored and multiplied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from assay.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from assay.compile.quantize.channels import ChannelQuantized
    from assay.compile.quantize.sites import Weight
    from assay.models.decoders.weights import BlockQuantized
    from assay.models.spec import Array

    Samples = Sequence[Mapping[str, Array]]

__all__ = ["FloatScheme", "GroupScheme", "Rounding", "Scheme", "SchemeOptions", "SourceScheme"]


class Rounding(StrEnum):
    """How weights become codes."""

    NEAREST = "nearest"  # to the nearest code, on a grid that holds the extremes of each group
    SEARCH = "mse"  # to the nearest, on the grid of the least squared error
    GPTQ = "gptq"  # column by column, what one leaves is made up for in the next, by calibration data


@dataclass(frozen=True, kw_only=True)
class SchemeOptions:
    """What may follow the name of a scheme; None is the scheme's own default."""

    group: int | None = None
    symmetric: bool | None = None
    rounding: Rounding | None = None
    calibrator: str | None = None
    smooth: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A quantization scheme. ``bits``: bits of one stored weight, without scales.

    ``needs_samples``: ``apply`` wants inputs of the model to calibrate on.
    """

    name: str
    description: str
    bits: int

    @property
    def needs_samples(self) -> bool:
        """Whether ``apply`` takes inputs to calibrate on."""
        return False

    @property
    def rounds_activations(self) -> bool:
        """Whether activations are quantized too, so that two right engines may differ by such steps."""
        return False

    @property
    def whole_graph(self) -> bool:
        """Whether it quantizes a graph, activations and all, and no single weight."""
        return False

    @property
    def changes_weights(self) -> bool:
        """Whether ``apply`` changes anything."""
        return True

    def option_words(self) -> dict[str, SchemeOptions]:
        """The options that the scheme takes, each by its word in a name."""
        return {}

    def with_options(self, options: SchemeOptions) -> Self:
        """The scheme with other options, under the name that says them. Raises UsageError."""
        if options != SchemeOptions():
            raise UsageError(f"The scheme {self.name} takes no options.")
        return self

    def for_weight(self, weight: Weight) -> Scheme:
        """The scheme that one weight of the model takes."""
        return self

    def for_table(self) -> Scheme:
        """The scheme that a table of embeddings takes."""
        return self

    def misfit(self, weight: Weight) -> str | None:
        """Why a weight cannot be stored so, or None where it can."""
        return None

    def encode(
        self, values: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[Any] | BlockQuantized | ChannelQuantized:
        """``values`` as they are stored, rounded to the nearest."""
        return values

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of a weight of ``shape``, scales and zero points included."""
        import math

        return math.prod(shape) * self.bits // 8

    def apply(self, model: onnx.ModelProto, samples: Samples | None = None) -> onnx.ModelProto:
        """Canonical ONNX with weights stored in this way; ``model`` stays as it is.

        Raises ModelError for weights that cannot be stored, UsageError where ``samples`` are missing.
        """
        from assay.compile.quantize.apply import Plan, quantize

        return quantize(model, Plan(scheme=self), samples).model


@dataclass(frozen=True, kw_only=True)
class SourceScheme(Scheme):
    """Weights as the model has them."""

    @property
    def changes_weights(self) -> bool:
        """Whether ``apply`` changes anything: it does not."""
        return False

    def apply(self, model: onnx.ModelProto, samples: Samples | None = None) -> onnx.ModelProto:
        """A copy of ``model``."""
        import onnx

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy


@dataclass(frozen=True, kw_only=True)
class FloatScheme(Scheme):
    """Floating point of ``bits`` bits, named as NumPy and ml_dtypes do; computed with in float32."""

    dtype: str

    def encode(
        self, values: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[Any]:
        """``values`` rounded to the nearest number of the type. Raises ModelError where some overflow."""
        import numpy as np

        from assay.errors import ModelError

        if self.dtype == "bfloat16":
            import ml_dtypes

            stored: npt.NDArray[Any] = values.astype(ml_dtypes.bfloat16)
        else:
            with np.errstate(over="ignore"):
                stored = values.astype(self.dtype)
        if not np.all(np.isfinite(stored.astype(np.float32))):
            raise ModelError(f"There are weights too large for {self.dtype}.")
        return stored


@dataclass(frozen=True, kw_only=True)
class GroupScheme(Scheme):
    """Integers of 4 or 8 bits, a float16 scale for each ``group`` weights of a row, perhaps a zero point.

    Products run as MatMulNBits with activations quantized to int8 in groups. Tables (embeddings) are kept at
    8 bits. ``default``: the options that the plain name stands for.
    """

    default: SchemeOptions
    options: SchemeOptions = SchemeOptions()

    @property
    def group(self) -> int:
        """Weights that share a scale."""
        chosen = self.options.group or self.default.group
        assert chosen is not None
        return chosen

    @property
    def symmetric(self) -> bool:
        """Whether there are no zero points."""
        chosen = self.default.symmetric if self.options.symmetric is None else self.options.symmetric
        return bool(chosen)

    @property
    def rounding(self) -> Rounding:
        """How weights become codes."""
        return self.options.rounding or self.default.rounding or Rounding.NEAREST

    @property
    def needs_samples(self) -> bool:
        """Whether rounding looks at activations."""
        return self.rounding is Rounding.GPTQ

    @property
    def rounds_activations(self) -> bool:
        """Activations of products are quantized to int8."""
        return True

    def option_words(self) -> dict[str, SchemeOptions]:
        """Group sizes, symmetry and rounding."""
        from assay.compile.quantize.groups import GROUP_SIZES

        return {
            **{f"g{size}": SchemeOptions(group=size) for size in GROUP_SIZES},
            "sym": SchemeOptions(symmetric=True),
            "asym": SchemeOptions(symmetric=False),
            **{each.value: SchemeOptions(rounding=each) for each in Rounding},
        }

    def with_options(self, options: SchemeOptions) -> Self:
        """The scheme with other options; those that are the default are not part of the name."""
        kept = SchemeOptions(
            group=None if options.group == self.default.group else options.group,
            symmetric=None if options.symmetric == self.default.symmetric else options.symmetric,
            rounding=None
            if options.rounding == (self.default.rounding or Rounding.NEAREST)
            else options.rounding,
        )
        words = [
            word
            for word, option in self.option_words().items()
            if any(
                getattr(option, field) is not None and getattr(option, field) == getattr(kept, field)
                for field in ("group", "symmetric", "rounding")
            )
        ]
        base = self.name.partition("-")[0]
        return replace(self, name="-".join([base, *words]), options=kept)

    def for_weight(self, weight: Weight) -> Scheme:
        """Eight bits for a table, also where it is the matrix of the head; float32 for what does not fit."""
        from assay.compile.quantize.sites import Kind
        from assay.compile.schemes import schemes

        if not weight.is_matrix:
            return schemes()["f32"]
        return self.for_table() if Kind.TABLE in weight.kinds else self

    def for_table(self) -> Scheme:
        """Eight bits, in groups of the same size."""
        from assay.compile.schemes import schemes

        if self.bits >= 8:
            return self
        return schemes()["int8"].with_options(SchemeOptions(group=self.group))

    def misfit(self, weight: Weight) -> str | None:
        """Why a weight cannot be stored so."""
        if not weight.is_matrix:
            return "it is no matrix of a product or a table"
        if weight.shape[1] < self.group:
            return f"its rows of {weight.shape[1]} are shorter than a group of {self.group}"
        return None

    def encode(
        self, values: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None = None
    ) -> BlockQuantized:
        """``values`` [rows, columns] as codes, scales and zero points; columns padded to whole groups."""
        from assay.compile.quantize.groups import quantize_groups

        return quantize_groups(
            values,
            bits=self.bits,
            group=self.group,
            symmetric=self.symmetric,
            search=self.rounding is not Rounding.NEAREST,
            importance=importance,
        )

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of codes, of float16 scales, and of zero points of as many bits as a code."""
        from assay.compile.quantize.groups import groups_of

        rows, columns = shape
        groups = groups_of(columns, self.group)
        zeros = 0 if self.symmetric else rows * -(-groups * self.bits // 8)
        return rows * groups * (self.group * self.bits // 8 + 2) + zeros
