"""Tiles of attention on a device, some an API: the first that fits heads of a size is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["AttentionTile", "attention_tile"]

_PAD = 4
_DEEPEST = 512


@dataclass(frozen=True, kw_only=True)
class AttentionTile:
    """A group computes ``across`` times ``columns`` queries, ``keys`` keys at a time.

    A thread has ``vectors`` times ``lanes`` queries (``columns``), and of these the scores of ``key_rows``
    keys, or ``depth_rows`` elements of the result, in registers. ``down`` threads share the queries of one;
    with one, threads keep all in memory of their own, and go through keys and elements in turns. With more,
    every key of a block is one of a thread's: ``keys`` is ``down`` times ``key_rows``.
    ``panels``: queries, keys and values go through the memory that the group shares.
    """

    lanes: int
    vectors: int
    across: int
    down: int
    keys: int
    key_rows: int
    depth_rows: int
    panels: bool = False

    @property
    def columns(self) -> int:
        """Queries of a thread."""
        return self.lanes * self.vectors

    @property
    def queries(self) -> int:
        """Queries of a group."""
        return self.columns * self.across

    @property
    def threads(self) -> int:
        """Threads of a group."""
        return self.across * self.down

    @property
    def query_pitch(self) -> int:
        """Elements from one column of the panel of queries to the next: queries lie beside each other."""
        return self.queries + _PAD

    @property
    def key_pitch(self) -> int:
        """Elements from one column of the panel of keys to the next: keys lie beside each other."""
        return self.keys + _PAD

    @property
    def value_pitch(self) -> int:
        """Elements from one value of the panel to the next, those that no head has included."""
        return self.down * self.depth_rows

    def panel_sizes(self, depth: int) -> tuple[int, int]:
        """Elements of the panel of queries, and of that which keys and then values are in."""
        return depth * self.query_pitch, max(depth * self.key_pitch, self.keys * self.value_pitch)

    def shared_bytes(self, depth: int) -> int:
        """Of all that a group shares: panels, powers, and a number of each query and each thread below."""
        elements = (self.keys + self.down) * self.queries
        return 4 * (elements + (sum(self.panel_sizes(depth)) if self.panels else 0))


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """A tile but for ``depth_rows``, which follow from the size of the heads; ``most_sums`` bounds them."""

    across: int
    down: int
    key_rows: int
    most_sums: int

    def fitted(self, lanes: int, vectors: int, value_depth: int, *, panels: bool) -> AttentionTile | None:
        rows = -(-value_depth // self.down)
        if panels:
            rows = -(-rows // 4) * 4  # read as vectors
        if rows * lanes * vectors > self.most_sums:
            return None
        return AttentionTile(
            lanes=lanes,
            vectors=vectors,
            across=self.across,
            down=self.down,
            keys=self.down * self.key_rows,
            key_rows=self.key_rows,
            depth_rows=rows,
            panels=panels,
        )


def _shape(across: int, down: int, key_rows: int, most_sums: int) -> _Shape:
    return _Shape(across=across, down=down, key_rows=key_rows, most_sums=most_sums)


# PoCL runs the threads of a group one after the other: vectors of a thread are those of the CPU, and eight
# sums of two vectors fit its registers. Sums and scores lie in memory of the thread, which stays in L1.
_OPENCL = AttentionTile(lanes=8, vectors=2, across=1, down=1, keys=64, key_rows=4, depth_rows=4)
# llvmpipe runs eight threads as the lanes of one vector, and reads for each by itself, from memory that a
# group shares no faster than from any other: as many sums as for its products of matrices. A group of few
# threads is fastest there: they hardly wait for each other. GPUs have more to run beside each other.
_DIRECT: Mapping[GpuApi, tuple[_Shape, ...]] = {
    GpuApi.VULKAN: (_shape(2, 4, 8, 128), _shape(2, 8, 8, 128), _shape(2, 16, 4, 128), _shape(2, 32, 2, 128)),
    GpuApi.WEBGPU: (_shape(8, 4, 8, 64), _shape(8, 8, 4, 64), _shape(8, 16, 2, 64), _shape(8, 32, 1, 64)),
}
# The larger heads are, the fewer queries and keys fit shared memory.
_SHARED = (_shape(16, 8, 4, 64), _shape(8, 16, 2, 64), _shape(4, 16, 1, 64))
_SHARED_APIS = (GpuApi.CUDA, GpuApi.ROCM, GpuApi.METAL)


def attention_tile(target: GpuTarget, depth: int, value_depth: int) -> AttentionTile | None:
    """The tile for heads of queries and keys of ``depth`` elements, and values of ``value_depth``.

    None where nothing fits the registers or the shared memory of ``target``.
    """
    api = target.scheduled_for.api
    if api == GpuApi.OPENCL:
        return _OPENCL if max(depth, value_depth) <= _DEEPEST else None
    panels = api in _SHARED_APIS
    lanes, vectors = (4, 1) if panels else (1, 8)
    for shape in _SHARED if panels else _DIRECT[api]:
        tile = shape.fitted(lanes, vectors, value_depth, panels=panels)
        if tile is None or tile.threads > target.max_threads:
            continue
        if tile.shared_bytes(depth) <= target.shared_memory_bytes:
            return tile
    return None
