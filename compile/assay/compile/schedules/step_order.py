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
_WINDOW = 192
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
    left = [list(range(panels.shape[1])) for _ in panels]
    done: list[list[int]] = [[] for _ in panels]
    counts: list[tuple[int, int]] = []
    for size in sizes:
        groups = [_groups(own, steps, size) for own, steps in zip(sums, left, strict=True)]
        count = min(len(found) for found in groups)
        if count * size < _WORTHWHILE * panels.shape[1]:
            continue
        counts.append((size, count))
        for steps, taken, found in zip(left, done, groups, strict=True):
            used = [step for group in found[:count] for step in group]
            taken += used
            steps[:] = sorted(set(steps) - set(used))
    counts.append((1, len(left[0])))
    order = np.array([taken + steps for taken, steps in zip(done, left, strict=True)], np.int32)
    ordered = np.take_along_axis(panels, order[:, :, None, None], 1)
    return OrderedPanels(panels=np.ascontiguousarray(ordered), order=order, sizes=tuple(counts))


def _groups(sums: npt.NDArray[np.uint8], steps: list[int], size: int) -> list[list[int]]:
    """Groups of ``size`` steps whose sums fit together: the step with the largest sum first, as it has the
    fewest partners, and with it the largest that fit."""
    candidates = np.array(steps, np.int64)
    largest = sums[candidates].max(1, initial=0)
    ranked = np.argsort(-largest.astype(np.int16), kind="stable")
    order = candidates[ranked[largest[ranked] <= _LIMIT]]
    # Eight sums a word, each below the top bit of its byte: one subtraction compares them all.
    own = np.ascontiguousarray(np.ascontiguousarray(sums[order]).view(np.uint64).T)
    free = np.ones(len(order), np.bool_)
    found: list[list[int]] = []
    for first in range(len(order)):
        if not free[first]:
            continue
        group, total = [first], own[:, first].copy()
        while len(group) < size:
            partner = _partner(own, free, total, first + 1)
            if partner is None:
                break
            group.append(partner)
            free[partner] = False
            total += own[:, partner]
        complete = len(group) == size
        free[group] = not complete
        free[first] = False
        if complete:
            found.append([int(order[position]) for position in group])
    return found


def _partner(
    own: npt.NDArray[np.uint64], free: npt.NDArray[np.bool_], total: npt.NDArray[np.uint64], start: int
) -> int | None:
    """The first free step from ``start`` on whose sums fit beside ``total``."""
    room = (_FULL - total)[:, np.newaxis]
    while start < len(free):
        end = start + _WINDOW
        left = np.bitwise_and.reduce(room - own[:, start:end], axis=0)
        fits = free[start:end] & (left & _TOPS == _TOPS)
        position = int(fits.argmax())
        if fits[position]:
            return start + position
        start = end
    return None
