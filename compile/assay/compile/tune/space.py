"""The choices that there are for a workload, and the short table that is tried first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from assay.compile.schedules.choices import Choice, Workload, WorkloadKind
from assay.compile.schedules.tiles import choose_panel_width, choose_tile, rows_that_fit
from assay.compile.targets.target import VectorUnit

__all__ = ["Space", "space_of"]

_MAX_VECTORS = 6
_UNROLLS = (1, 2, 4, 8)
_CHUNKS = (16, 48, 96, 192, 384)
# Two multiply-adds a cycle, of four cycles each, keep this many vectors of accumulators busy.
_LEAST_ACCUMULATORS = 8


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may be chosen: (panel width, rows) of a tile in registers, unroll, rows of a chunk, one thread.

    ``analytic`` is what arithmetic chooses, spelled out. None among ``chunks`` leaves them to arithmetic.
    ``lanes``: elements of a vector register.
    """

    tiles: tuple[tuple[int, int], ...]
    unrolls: tuple[int, ...]
    chunks: tuple[int | None, ...]
    serial: tuple[bool | None, ...]
    analytic: Choice
    lanes: int

    def parameters(self) -> Mapping[str, tuple[Any, ...]]:
        """The parameters of a candidate by name, each with its values."""
        return {"tile": self.tiles, "unroll": self.unrolls, "chunk": self.chunks, "serial": self.serial}

    def choice(self, values: Mapping[str, Any]) -> Choice:
        """The candidate of one value for each parameter."""
        width, rows = values["tile"]
        return Choice(
            panel_width=width,
            rows=rows,
            unroll=values["unroll"],
            chunk_rows=values["chunk"],
            serial=values["serial"],
        )

    def grid(self) -> Iterator[Choice]:
        """Every candidate, tiles slowest."""
        names = list(self.parameters())
        for values in product(*self.parameters().values()):
            yield self.choice(dict(zip(names, values, strict=True)))

    def table(self) -> Iterator[Choice]:
        """A few candidates that differ from the analytic choice in one thing, and the usual tiles."""
        start = {
            "tile": (self.analytic.panel_width, self.analytic.rows),
            "unroll": self.analytic.unroll,
            "chunk": None,
            "serial": None,
        }
        seen = {self.analytic}
        for name in ("tile", "unroll", "chunk", "serial"):
            values = self._usual_tiles() if name == "tile" else self.parameters()[name]
            for value in values:
                candidate = self.choice({**start, name: value})
                if candidate not in seen:
                    seen.add(candidate)
                    yield candidate

    def _usual_tiles(self) -> list[tuple[int, int]]:
        """For each width the two tallest tiles, where they have the accumulators that multiply-adds need."""
        heights: dict[int, list[int]] = {}
        for width, rows in self.tiles:
            heights.setdefault(width, []).append(rows)
        usual = [(width, rows) for width, each in heights.items() for rows in sorted(each)[:-3:-1]]
        busy = [tile for tile in usual if tile[0] * tile[1] >= _LEAST_ACCUMULATORS * self.lanes]
        return busy or usual


def space_of(workload: Workload, unit: VectorUnit, threads: int, *, panel_width: int | None = None) -> Space:
    """The choices for ``workload``; ``panel_width`` is given for weights that are packed already."""
    rows, cols, depth = _extents(workload)
    analytic_width = panel_width or choose_panel_width(unit, rows, cols)
    tile = choose_tile(unit, rows, analytic_width, depth)
    lanes = unit.lanes()
    widths = [panel_width] if panel_width else [lanes * v for v in range(1, _MAX_VECTORS + 1)]
    tiles = [
        (width, height)
        for width in widths
        for height in range(1, min(rows, rows_that_fit(unit, width)) + 1)
        if panel_width or width <= max(lanes, -(-cols // lanes) * lanes)
    ]
    chunks = (None, *(chunk for chunk in _CHUNKS if chunk < rows)) if rows > tile.rows else (None,)
    return Space(
        tiles=tuple(tiles),
        unrolls=tuple(u for u in _UNROLLS if u <= depth),
        chunks=chunks,
        serial=(None, True) if threads > 1 else (None,),
        analytic=Choice(panel_width=analytic_width, rows=tile.rows, unroll=tile.unroll),
        lanes=lanes,
    )


def _extents(workload: Workload) -> tuple[int, int, int]:
    """Rows, columns and the contiguous depth, as the micro-kernel sees them."""
    size = workload.sizes
    if workload.kind is not WorkloadKind.CONV2D:
        return size["rows"], size["cols"], size["depth"]
    inner = size["inputs"] // size["groups"]
    whole_row = size["groups"] == 1 and size["dilation_w"] == 1
    depth = inner * (size["kernel_w"] if whole_row else 1)
    return size["batch"] * size["height"] * size["width"], size["outputs"] // size["groups"], depth
