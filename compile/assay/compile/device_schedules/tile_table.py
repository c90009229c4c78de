"""Sizes of register tiles, one line a kind of TVM target."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeviceTile", "device_tile"]


@dataclass(frozen=True, kw_only=True)
class DeviceTile:
    """How a product is divided. A thread computes ``rows`` times ``vectors`` times ``lanes`` elements.

    ``lanes``: elements of one variable; 1 where threads of a group run as the lanes of a vector.
    ``row_threads`` and ``column_threads`` of a group lie beside each other in rows and columns: those in a
    row read the same columns, which stay in the cache of a CPU; those in a column the same rows, which a
    device reads once for all.
    """

    rows: int
    vectors: int
    lanes: int
    row_threads: int
    column_threads: int


# PoCL runs the threads of a group one after the other: vectors of a thread are those of the CPU.
# llvmpipe runs eight threads as the lanes of one vector, and reads what all of them read once.
_TILES = {
    "opencl": DeviceTile(rows=6, vectors=2, lanes=8, row_threads=8, column_threads=1),
    "webgpu": DeviceTile(rows=8, vectors=4, lanes=1, row_threads=1, column_threads=16),
}


def device_tile(kind: str) -> DeviceTile | None:
    """The tile for a kind of target; None where TVM's own schedule is kept."""
    return _TILES.get(kind)
