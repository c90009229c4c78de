"""Tiles of products whose operands go through the memory that a block of threads shares, some an API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = [
    "FEW_ROWS",
    "SIMDGROUP_MATRIX",
    "SYMBOLIC_SIZE",
    "MatrixTile",
    "SharedTile",
    "SimdgroupTile",
    "fitted_matrix_tile",
    "fitted_simdgroup_tile",
    "fitted_tile",
    "matrix_tiles",
    "shared_tiles",
    "simdgroup_tiles",
]

FEW_ROWS = 16
"""Up to as many, a product of symbolic rows has a kernel of its own."""

SYMBOLIC_SIZE = 512
"""What a size that is known only when the model runs is taken for."""

SIMDGROUP_MATRIX = 8
"""Rows and columns of Metal's SIMD-group matrices."""

# A multiply-add takes a cycle of a thread. So does an element that comes from shared memory, about; one that
# comes from a device's memory takes several, with what stores it in shared memory.
_SHARED_READ, _DEVICE_READ = 1.0, 4.0
_PAD = 4


@dataclass(frozen=True, kw_only=True)
class SharedTile:
    """A block computes ``rows`` by ``columns``, a thread ``thread_rows`` by ``thread_columns`` of them.

    ``steps``: of the reduction, whose operands are in shared memory at a time. All are powers of two.
    """

    rows: int
    columns: int
    steps: int
    thread_rows: int
    thread_columns: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.thread_rows * (self.columns // self.thread_columns)

    @property
    def left_pitch(self) -> int:
        """Elements from one step of the left panel to the next: rows lie beside each other."""
        return self.rows + _PAD

    @property
    def right_pitch(self) -> int:
        """Elements from one step of the right panel to the next."""
        return self.columns + _PAD

    @property
    def shared_bytes(self) -> int:
        """Of both panels in float32."""
        return 4 * self.steps * (self.left_pitch + self.right_pitch)


def _tile(rows: int, columns: int, steps: int, thread_rows: int, thread_columns: int) -> SharedTile:
    return SharedTile(
        rows=rows, columns=columns, steps=steps, thread_rows=thread_rows, thread_columns=thread_columns
    )


# 64 sums of a thread and what it multiplies are within the 128 registers with which an SM of NVIDIA still
# holds two blocks of 256 threads. LLVM for AMD reads all that an unrolled loop reads first: more than 8 steps
# would take more registers than a thread has.
_TILES: Mapping[GpuApi, tuple[SharedTile, ...]] = {
    GpuApi.CUDA: (
        _tile(128, 128, 8, 8, 8),
        _tile(64, 128, 16, 8, 8),
        _tile(64, 64, 16, 8, 4),
        _tile(32, 64, 16, 4, 4),
        _tile(32, 32, 16, 4, 2),
        _tile(16, 64, 16, 4, 4),
        _tile(8, 64, 32, 4, 2),
    ),
    GpuApi.ROCM: (
        _tile(128, 128, 8, 8, 8),
        _tile(64, 128, 8, 8, 8),
        _tile(64, 64, 8, 8, 4),
        _tile(32, 64, 8, 4, 4),
        _tile(32, 32, 8, 4, 2),
        _tile(16, 64, 8, 4, 4),
        _tile(8, 64, 8, 4, 2),
    ),
}
# Threads that a device of middle size runs at a time, with as many registers as these kernels take.
_BUSY_THREADS = {GpuApi.CUDA: 32768, GpuApi.ROCM: 32768, GpuApi.METAL: 8192}


def shared_tiles(target: GpuTarget) -> tuple[SharedTile, ...]:
    """The tiles within the limits of ``target``; none where its products are computed in other ways."""
    return tuple(
        tile
        for tile in _TILES.get(target.scheduled_for.api, ())
        if tile.threads <= target.max_threads and tile.shared_bytes <= target.shared_memory_bytes
    )


def fitted_tile(target: GpuTarget, batch: int, rows: int, columns: int) -> SharedTile:
    """The tile that is estimated to be fastest for ``batch`` products of ``rows`` by ``columns``.

    Raises ValueError where ``target`` has none.
    """
    tiles = shared_tiles(target)
    busy = _BUSY_THREADS.get(target.scheduled_for.api, 1)

    def cost(tile: SharedTile) -> float:
        blocks = batch * -(-rows // tile.rows) * -(-columns // tile.columns)
        own = float(tile.thread_rows * tile.thread_columns)
        own += _SHARED_READ * (tile.thread_rows + tile.thread_columns)
        own += _DEVICE_READ * (tile.rows + tile.columns) / tile.threads
        return max(blocks * tile.threads, busy) * own

    return min(tiles, key=cost)


@dataclass(frozen=True, kw_only=True)
class MatrixTile:
    """A block computes ``rows`` by ``columns`` of float16, ``steps`` of the reduction at a time.

    ``threads``: of a block, in warps of which ``warps_down`` lie below each other.
    """

    rows: int
    columns: int
    steps: int
    threads: int
    warps_down: int

    @property
    def pitch(self) -> int:
        """Elements from one row or column of a panel to the next: the steps of each lie beside each other."""
        return self.steps + 8

    @property
    def shared_bytes(self) -> int:
        """Of both panels."""
        return 2 * self.pitch * (self.rows + self.columns)


_MATRIX_TILES = (
    MatrixTile(rows=128, columns=128, steps=32, threads=256, warps_down=2),
    MatrixTile(rows=64, columns=64, steps=32, threads=128, warps_down=2),
    MatrixTile(rows=16, columns=128, steps=32, threads=128, warps_down=1),
)
_BUSY_BLOCKS = 128  # multiprocessors of a larger device


def matrix_tiles() -> tuple[MatrixTile, ...]:
    """The tiles of all devices that have instructions for small matrices."""
    return _MATRIX_TILES


def fitted_matrix_tile(batch: int, rows: int, columns: int) -> MatrixTile:
    """The tile that is estimated to be fastest for ``batch`` products of ``rows`` by ``columns``.

    The instructions are so fast that what a block reads counts.
    """

    def cost(tile: MatrixTile) -> float:
        blocks = batch * -(-rows // tile.rows) * -(-columns // tile.columns)
        return max(blocks, _BUSY_BLOCKS) * float(tile.rows + tile.columns)

    return min(_MATRIX_TILES, key=cost)


@dataclass(frozen=True, kw_only=True)
class SimdgroupTile:
    """A block of ``groups`` SIMD-groups computes ``rows`` by ``columns``, each of them a part.

    ``groups_down`` of them lie below each other.
    """

    rows: int
    columns: int
    groups: int
    groups_down: int

    group_threads = 32
    """Threads of a SIMD-group."""

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.groups * self.group_threads

    @property
    def groups_across(self) -> int:
        """SIMD-groups beside each other."""
        return self.groups // self.groups_down

    @property
    def group_rows(self) -> int:
        """Rows that a SIMD-group computes."""
        return self.rows // self.groups_down

    @property
    def group_columns(self) -> int:
        """Columns that a SIMD-group computes."""
        return self.columns // self.groups_across

    @property
    def results(self) -> int:
        """Sums in float32 that lie in shared memory at a time: a row of matrices of each SIMD-group."""
        return self.groups * SIMDGROUP_MATRIX * self.group_columns

    @staticmethod
    def steps(element_bytes: int) -> int:
        """Of the reduction, whose operands are in shared memory at a time."""
        return 64 // element_bytes

    @staticmethod
    def pitch(length: int, element_bytes: int) -> int:
        """Elements from one line of a panel to the next, of ``length`` elements beside each other.

        Vectors of 16 bytes stay aligned, and lines begin in different banks.
        """
        return length + 16 // element_bytes

    def shared_bytes(self, element_bytes: int) -> int:
        """Of both panels, however they lie, and the results."""
        steps, pitch = self.steps(element_bytes), self.pitch
        longest = (
            max(size * pitch(steps, element_bytes), steps * pitch(size, element_bytes))
            for size in (self.rows, self.columns)
        )
        return element_bytes * sum(longest) + 4 * self.results


# 16 matrices of sums take 32 registers of a thread, what it multiplies and brings as many again: Apple's GPUs
# have half as many as NVIDIA's.
_SIMDGROUP_TILES = (
    SimdgroupTile(rows=64, columns=64, groups=4, groups_down=2),
    SimdgroupTile(rows=32, columns=64, groups=4, groups_down=2),
    SimdgroupTile(rows=32, columns=32, groups=4, groups_down=2),
    SimdgroupTile(rows=16, columns=64, groups=4, groups_down=1),
    SimdgroupTile(rows=8, columns=64, groups=4, groups_down=1),
)


def simdgroup_tiles() -> tuple[SimdgroupTile, ...]:
    """The tiles of products by Metal's SIMD-group matrices."""
    return _SIMDGROUP_TILES


def fitted_simdgroup_tile(batch: int, rows: int, columns: int) -> SimdgroupTile:
    """The tile that is estimated to be fastest for ``batch`` products of ``rows`` by ``columns``.

    A matrix product is taken for as many multiply-adds of threads.
    """

    def cost(tile: SimdgroupTile) -> float:
        blocks = batch * -(-rows // tile.rows) * -(-columns // tile.columns)
        own = tile.rows * tile.columns / tile.threads
        own += _SHARED_READ * (tile.group_rows + tile.group_columns) / tile.group_threads
        own += _DEVICE_READ * (tile.rows + tile.columns) / tile.threads
        return max(blocks * tile.threads, _BUSY_THREADS[GpuApi.METAL]) * own

    return min(_SIMDGROUP_TILES, key=cost)
