"""LSTM, GRU and RNN over a whole sequence: one kernel that walks the steps after the inputs were projected.

The products of the inputs with their weights do not depend on the state, so one GEMM computes them for all
steps. What is left for each step is the state times the recurrent weights, packed so that one panel holds all
gates of a few neighbouring hidden units: the cell runs on them while they are in registers (Appleyard et al.,
"Optimizing Performance of Recurrent Neural Networks on GPUs", 2016).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Cell", "Phase", "Recurrence", "UnitLayout"]

# Vectors of accumulators for one row: enough to hide the latency of the multiply-adds.
_VECTORS = 4


class Cell(StrEnum):
    """The recurrent operators of ONNX."""

    LSTM = "LSTM"
    GRU = "GRU"
    RNN = "RNN"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One product with a state in each step: which gates it gives, and whether the state is reset first."""

    gates: tuple[int, ...]
    reset_state: bool = False


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """What to compute. Gates are in ONNX's order: LSTM iofc, GRU zrh.

    ``reverse``: for each direction, whether it walks from the last step to the first. ``activations``: of the
    gates, of the candidate and, for the LSTM, of the output, out of Sigmoid, Tanh and Relu. ``has_lengths``,
    ``has_hidden`` and ``has_cell``: which of the optional operands there are.
    """

    cell: Cell
    hidden: int
    reverse: tuple[bool, ...]
    activations: tuple[str, ...]
    linear_before_reset: bool = False
    has_lengths: bool = False
    has_hidden: bool = False
    has_cell: bool = False

    @property
    def gates(self) -> int:
        """Gates of the cell."""
        return {Cell.LSTM: 4, Cell.GRU: 3, Cell.RNN: 1}[self.cell]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The products of one step, in order."""
        if self.cell is Cell.GRU and not self.linear_before_reset:
            return (Phase(gates=(0, 1)), Phase(gates=(2,), reset_state=True))
        return (Phase(gates=tuple(range(self.gates))),)

    @property
    def separate_bias(self) -> int | None:
        """The gate whose recurrent bias is added before the reset, and so apart from the inputs'."""
        return 2 if self.cell is Cell.GRU and self.linear_before_reset else None

    def to_text(self) -> str:
        """A text that from_text reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_text(text: str) -> Recurrence:
        """The recurrence that gave this text."""
        fields = json.loads(text)
        fields["cell"] = Cell(fields["cell"])
        fields["reverse"], fields["activations"] = tuple(fields["reverse"]), tuple(fields["activations"])
        return Recurrence(**fields)


@dataclass(frozen=True, kw_only=True)
class UnitLayout:
    """How hidden units lie in panels: in vectors of ``lanes`` units, a multiple of ``blocks`` of them."""

    hidden: int
    lanes: int
    blocks: int

    @staticmethod
    def of(recurrence: Recurrence, lanes: int) -> UnitLayout:
        """As many blocks as give the phase with the fewest gates enough accumulators."""
        vectors = -(-recurrence.hidden // lanes)
        fewest = min(len(phase.gates) for phase in recurrence.phases)
        return UnitLayout(
            hidden=recurrence.hidden, lanes=lanes, blocks=min(max(1, _VECTORS // fewest), vectors)
        )

    @property
    def padded(self) -> int:
        """Hidden units, those included that only fill the last blocks."""
        together = self.lanes * self.blocks
        return -(-self.hidden // together) * together

    def blocks_of(self, phase: Phase) -> int:
        """Vectors of units in one panel of a phase: a divisor of ``blocks``."""
        most = max(1, _VECTORS // len(phase.gates))
        return max(n for n in range(1, most + 1) if self.blocks % n == 0)

    def width(self, phase: Phase) -> int:
        """Columns of one panel of a phase: all its gates of the panel's units."""
        return self.blocks_of(phase) * len(phase.gates) * self.lanes

    def panels(self, phase: Phase) -> int:
        """Panels of a phase."""
        return self.padded // (self.lanes * self.blocks_of(phase))

    def interleave(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """``[..., gates, hidden]`` as ``[..., padded / lanes, gates, lanes]``, padded with zeros."""
        *leading, gates, hidden = weights.shape
        wide = np.zeros((*leading, gates, self.padded), weights.dtype)
        wide[..., :hidden] = weights
        wide = wide.reshape(*leading, gates, -1, self.lanes)
        return np.ascontiguousarray(np.moveaxis(wide, -3, -2))
