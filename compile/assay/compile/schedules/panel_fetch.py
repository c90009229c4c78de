"""Fetching the next panel of B ahead, while the row tiles of this one are computed.

A panel serves many row tiles from the caches, but its first one would wait for memory: whole networks have
more weights than any cache holds. So each row tile asks for its share of the next panel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from assay.compile.schedules.ir import CACHE_LINE, Buffer, Expr, Stmt, i64, loop, prefetch, seq, simplify

__all__ = ["PanelFetch", "cheap_to_stream", "plan_fetch", "stays_near", "walk_and_fetch"]

# What may still be in L2 when a network comes back to it, however large L2 is.
_NEAR_BYTES = 256 * 1024
# Panels that are cheap to stream again for each chunk of rows: what lies beyond L2 is slow on many servers.
_STREAMED_BYTES = 640 * 1024
# Row tiles that a panel must serve for the next one to be fetched meanwhile.
_FEWEST_TILES = 3


@dataclass(frozen=True, kw_only=True)
class PanelFetch:
    """Cache lines that a row tile fetches: how many, where the first is, and their size, in elements."""

    lines: int
    first: Expr
    stride: int

    def at(self, tile: Expr) -> PanelFetch:
        """The share of the ``tile``-th row tile."""
        return replace(self, first=simplify(self.first + tile * (self.lines * self.stride)))


def stays_near(size: int, l2_bytes: int) -> bool:
    """Whether weights of ``size`` bytes are in L2 from one run of a network to the next."""
    return size <= min(l2_bytes // 2, _NEAR_BYTES)


def cheap_to_stream(size: int, l2_bytes: int) -> bool:
    """Whether panels of ``size`` bytes in all may come by once for each chunk of rows."""
    return size <= min(l2_bytes * 5 // 4, _STREAMED_BYTES)


def plan_fetch(*, elements: int, element_bytes: int, ahead: int, tiles: int, near: bool) -> PanelFetch | None:
    """The first of ``tiles`` shares of the next ``elements`` to be used, ``ahead`` of the present ones.

    None where caches ``near`` hold all of B anyway, or where there are too few row tiles to share it.
    """
    if tiles < _FEWEST_TILES or near:
        return None
    lines = -(-elements * element_bytes // (CACHE_LINE * tiles))
    return PanelFetch(lines=lines, first=i64(ahead), stride=CACHE_LINE // element_bytes)


def walk_and_fetch(
    fetch: PanelFetch,
    panels: Buffer,
    panel: Expr,
    *,
    blocks: int,
    walk: Expr,
    walks: int,
    block: Callable[[Expr], Stmt],
) -> Stmt:
    """``block(0)`` to ``block(blocks - 1)``, the ``walk``-th of ``walks`` times in a tile, fetches between.

    ``panel``: where the present panel starts in the flat buffer ``panels``.
    """
    share = -(-fetch.lines // walks)
    apart = max(1, blocks // share)
    times = blocks // apart
    each = -(-share // times)

    def some(t: Expr) -> Stmt:
        line = panel + fetch.first + ((walk * times + t) * each) * fetch.stride
        lines = [prefetch(panels, line + n * fetch.stride) for n in range(each)]
        return seq(*lines, loop(apart, lambda k: block(t * apart + k), "k"))

    rest = [loop(blocks % apart, lambda k: block(times * apart + k), "k_rest")] if blocks % apart else []
    return seq(loop(times, some, "fetch"), *rest)
