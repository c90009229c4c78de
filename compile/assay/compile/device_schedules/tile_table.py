"""Sizes of register tiles, one line an API."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeviceTile", "device_tile"]


@dataclass(frozen=True, kw_only=True)
class DeviceTile:
    """How a product is divided. A thread computes ``rows`` times ``vectors`` times ``lanes`` elements.

    ``lanes``: elements of one variable; 1 where threads of a group run as the lanes of a vector.
    ``row_threads`` and ``column_threads`` of a group lie beside each other in rows and columns: those in a
    row read the same columns, which stay in the cache of a CPU; those in a column the same rows, which a
    device reads once for all. ``unroll``: steps of the reduction in one iteration of a loop.
    """

    rows: int
    vectors: int
    lanes: int
    row_threads: int
    column_threads: int
    unroll: int = 1


# PoCL runs the threads of a group one after the other: vectors of a thread are those of the CPU.
# llvmpipe runs eight threads as the lanes of one vector, and reads for each by itself: what counts is how
# often an element that was read is used. The sums still fit the registers of a thread of a GPU.
_TILES = {
    "opencl": DeviceTile(rows=6, vectors=2, lanes=8, row_threads=8, column_threads=1),
    "vulkan": DeviceTile(rows=16, vectors=8, lanes=1, row_threads=4, column_threads=16),
    "webgpu": DeviceTile(rows=8, vectors=8, lanes=1, row_threads=4, column_threads=16),
}


def device_tile(api: str) -> DeviceTile | None:
    """The tile for an API; None where TVM's own schedule is kept."""
    return _TILES.get(api)
