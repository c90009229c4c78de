"""An order of the steps of K in which several products can be added in 16 bits before they are widened.

``pmaddubsw`` gives sums of two products in 16 bits, and widening one costs another multiplication. Two steps
can share it if for every column the weights of one sign that meet in one sum are at most 127 together: then
255 times them fits. Which steps go together is free, since the order of a sum of integers is, and is chosen
for each panel from its weights; what finds no partner stays alone, so that the result is exact for any input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["OrderedPanels", "order_steps"]

# 255 times this is below 2^15, and it is below the top bit of a byte.
_LIMIT = 127
_TOPS, _FULL = np.uint64(0x8080808080808080), np.uint64(0xFFFFFFFFFFFFFFFF)
# Steps looked at together in the search for a partner.
_WINDOW = 64
# A size is used where at least this part of the steps can be taken so.
_WORTHWHILE = 0.25


@dataclass(frozen=True, kw_only=True)
class OrderedPanels:
    """``panels`` [P, steps, NR, 4] in the order ``order`` [P, steps]; ``sizes``: (together, how often)."""

    panels: npt.NDArray[np.int8]
    order: npt.NDArray[np.int32]
    sizes: tuple[tuple[int, int], ...]


def order_steps(panels: npt.NDArray[np.int8], sizes: tuple[int, ...] = (3, 2)) -> OrderedPanels:
    """Reorder the steps of each panel so that as many as can be are taken ``sizes`` at a time.

    ``panels``: int8 [P, steps, NR, 4], of which no two neighbouring weights of one sign exceed 128 together.
    """
    weights = panels.reshape(*panels.shape[:3], 2, 2).astype(np.int16)
    signs = [np.maximum(weights, 0).sum(-1), -np.minimum(weights, 0).sum(-1)]
    # [P, steps, sums of one sign that fill a register]; each is at most 128.
    sums = np.concatenate(signs, -1).reshape(*panels.shape[:2], -1).astype(np.uint8)
    left = np.broadcast_to(np.arange(panels.shape[1]), panels.shape[:2])
    done: list[npt.NDArray[np.int64]] = []
    counts: list[tuple[int, int]] = []
    for size in sizes:
        groups = _groups(np.take_along_axis(sums, left[:, :, np.newaxis], 1), size)
        count = min((len(found) for found in groups), default=0)
        if count * size < _WORTHWHILE * panels.shape[1]:
            continue
        counts.append((size, count))
        taken = np.array([found[:count] for found in groups], np.int64).reshape(len(panels), count * size)
        done.append(np.take_along_axis(left, taken, 1))
        others = np.ones(left.shape, np.bool_)
        np.put_along_axis(others, taken, False, 1)
        left = left[others].reshape(len(panels), -1)
    counts.append((1, left.shape[1]))
    order = np.concatenate([*done, left], 1).astype(np.int32)
    ordered = np.take_along_axis(panels, order[:, :, None, None], 1)
    return OrderedPanels(panels=np.ascontiguousarray(ordered), order=order, sizes=tuple(counts))


def _groups(sums: npt.NDArray[np.uint8], size: int) -> list[list[list[int]]]:
    """For each panel, groups of ``size`` steps whose sums [P, steps, sums] fit together.

    The free step with the largest sum comes first, as it has the fewest partners, and with it the largest
    that fit. All panels are searched at once, each for itself.
    """
    panels = np.arange(len(sums))
    largest = sums.max(2, initial=0)
    ranked = np.argsort(-largest.astype(np.int16), axis=1, kind="stable")
    free = np.take_along_axis(largest, ranked, 1) <= _LIMIT
    # Eight sums a word, each below the top bit of its byte: one subtraction compares them all.
    ordered = np.ascontiguousarray(np.take_along_axis(sums, ranked[:, :, np.newaxis], 1)).view(np.uint64)
    own = np.ascontiguousarray(np.moveaxis(ordered, 2, 0))
    found: list[list[list[int]]] = [[] for _ in panels]
    while free.any():
        first = free.argmax(1)
        complete = free[panels, first]
        start = int(first[complete].min())
        members, total = [first], own[:, panels, first]
        free[panels, first] = False
        taken = []
        for _ in range(size - 1):
            partner = _partners(own, free, total, start, complete)
            complete = partner >= 0
            free[panels[complete], partner[complete]] = False
            taken.append(complete.copy())
            total = total + own[:, panels, partner]
            members.append(partner)
        for partner, mask in zip(members[1:], taken, strict=True):
            back = mask & ~complete
            free[panels[back], partner[back]] = True
        for panel in panels[complete]:
            found[panel].append([int(ranked[panel, member[panel]]) for member in members])
    return found


def _partners(
    own: npt.NDArray[np.uint64],
    free: npt.NDArray[np.bool_],
    total: npt.NDArray[np.uint64],
    start: int,
    wanted: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """For ``wanted`` panels the first free step from ``start`` on that fits beside ``total``, else -1."""
    found = np.full(len(free), -1, np.int64)
    room = (_FULL - total)[:, :, np.newaxis]
    rows = np.flatnonzero(wanted)
    while start < free.shape[1] and len(rows):
        window = slice(start, start + _WINDOW)
        left = np.bitwise_and.reduce(room[:, rows] - own[:, rows, window], axis=0)
        fits = free[rows, window] & (left & _TOPS == _TOPS)
        position = fits.argmax(1)
        hit = fits[np.arange(len(rows)), position]
        found[rows[hit]] = start + position[hit]
        rows, start = rows[~hit], start + _WINDOW
    return found
