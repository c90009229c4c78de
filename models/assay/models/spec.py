"""What a model is: its provider, interface, tolerance and licence. Free of heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from assay.models.decoders.spec import DecoderSpec

__all__ = [
    "Array",
    "DType",
    "DecoderProvider",
    "Dim",
    "InputSpec",
    "ModelSpec",
    "Provider",
    "SymbolicDim",
    "Tolerance",
    "Weights",
]

Array: TypeAlias = "npt.NDArray[Any]"


class DType(StrEnum):
    """Element types of inputs and outputs, by their NumPy names."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    BOOL = "bool"


class Weights(StrEnum):
    """Where a model's numbers come from; shown wherever its figures are."""

    TRAINED = "trained"
    RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class SymbolicDim:
    """A dimension whose size is given at run time, within ``minimum`` and ``maximum`` (inclusive)."""

    name: str
    default: int
    minimum: int = 1
    maximum: int

    def __post_init__(self) -> None:
        if not (0 <= self.minimum <= self.default <= self.maximum and self.maximum >= 1):
            raise ValueError(f"dimension {self.name!r}: need 0 <= minimum <= default <= maximum > 0")


Dim: TypeAlias = int | SymbolicDim


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input: its name, dtype and shape (integers and symbolic dimensions)."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an output may be from ONNX Runtime's: |ours - theirs| <= absolute + relative * |theirs|.

    ``row``: where set, the root mean square error along the last axis over the standard deviation of theirs,
    averaged over all rows, is at most this.
    """

    absolute: float = 1e-4
    relative: float = 1e-3
    row: float | None = None


class Provider(Protocol):
    """Where a model comes from. Frozen dataclasses in ``assay.models.providers`` satisfy it."""

    def onnx_path(self, folder: Path) -> Path:
        """Path of the model as ONNX; whatever has to be made is written below ``folder``."""
        ...


@runtime_checkable
class DecoderProvider(Provider, Protocol):
    """A provider of a model that generates text, and of its text side."""

    def decoder(self) -> DecoderSpec:
        """The sizes and the text side as the source has them; a tokenizer that has to be made is kept."""
        ...


RepresentativeInputs: TypeAlias = "Callable[[Mapping[str, int], np.random.Generator], dict[str, Array]]"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model by name. ``inputs`` in the order of the graph.

    ``representative_inputs(sizes, generator)`` maps a size for every symbolic dimension to arrays by input
    name that look like real data (token ids in the vocabulary, an audio-like signal). ``decode_file(path)``
    makes the arrays of one run from a file. ``decoder`` is set for models that generate text.
    """

    name: str
    description: str
    provider: Provider
    inputs: tuple[InputSpec, ...]
    weights: Weights
    licence: str
    tolerance: Tolerance = Tolerance()
    representative_inputs: RepresentativeInputs | None = None
    decode_file: Callable[[Path], dict[str, Array]] | None = None
    needs_torch: bool = False
    decoder: DecoderSpec | None = None
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def symbolic_dims(self) -> dict[str, SymbolicDim]:
        """Symbolic dimensions by name, in the order in which the inputs mention them."""
        return {dim.name: dim for spec in self.inputs for dim in spec.shape if isinstance(dim, SymbolicDim)}

    def default_sizes(self) -> dict[str, int]:
        """The default size of each symbolic dimension."""
        return {name: dim.default for name, dim in self.symbolic_dims.items()}
