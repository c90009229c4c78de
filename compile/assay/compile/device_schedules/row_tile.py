"""How products of few rows are divided, one line an API."""

from __future__ import annotations

from dataclasses import dataclass

from assay.compile.targets.gpu_target import GpuApi

__all__ = ["RowTile", "row_tile"]


@dataclass(frozen=True, kw_only=True)
class RowTile:
    """A thread computes ``vectors`` times ``lanes`` outputs of ``rows`` rows, over some of the reduction.

    ``left_lanes``: elements of the left operand that are read at once. ``column_threads`` of a group lie
    beside each other in outputs; ``step_threads`` take turns with the blocks of one output. ``most_rows``:
    products of more are not of this form.
    """

    rows: int
    vectors: int
    lanes: int
    left_lanes: int
    column_threads: int
    step_threads: int
    most_rows: int

    @property
    def width(self) -> int:
        """Outputs of a group."""
        return self.lanes * self.vectors * self.column_threads

    @property
    def threads(self) -> int:
        """Threads of a group."""
        return self.column_threads * self.step_threads


# PoCL runs the threads of a group one after the other: a thread has vectors of the CPU. llvmpipe runs eight
# threads as the lanes of one vector, and reads for each by itself: what is read of the left operand is used
# for many outputs. GPUs have many threads to keep busy, and read at once what consecutive threads want.
_TILES = {
    GpuApi.OPENCL: RowTile(
        rows=4, vectors=2, lanes=8, left_lanes=1, column_threads=1, step_threads=1, most_rows=12
    ),
    GpuApi.VULKAN: RowTile(
        rows=4, vectors=2, lanes=4, left_lanes=4, column_threads=8, step_threads=1, most_rows=8
    ),
    GpuApi.WEBGPU: RowTile(
        rows=4, vectors=1, lanes=4, left_lanes=4, column_threads=8, step_threads=8, most_rows=8
    ),
}
_OTHERS = RowTile(rows=4, vectors=1, lanes=4, left_lanes=4, column_threads=8, step_threads=16, most_rows=8)


def row_tile(api: GpuApi) -> RowTile:
    """The tile for an API."""
    return _TILES.get(api, _OTHERS)
