"""An order of the steps of K in which several products can be added in 16 bits before they are widened.

``pmaddubsw`` gives sums of two products in 16 bits, and widening one costs another multiplication. Two steps
can share it if for every column the weights of one sign that meet in one sum are at most 128 together: then
255 times them fits. Which steps go together is free, since the order of a sum of integers is, and is chosen
for each panel from its weights; what finds no partner stays alone, so that the result is exact for any input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OrderedPanels", "order_steps"]

# 255 * 128 = 32640 is the last multiple of 255 * 64 below 2^15.
_LIMIT = 128
# A size is used where at least this part of the steps can be taken so.
_WORTHWHILE = 0.25


@dataclass(frozen=True, kw_only=True)
class OrderedPanels:
    """``panels`` [P, steps, NR, 4] in the order ``order`` [P, steps]; ``sizes``: (together, how often)."""

    panels: npt.NDArray[np.int8]
    order: npt.NDArray[np.int32]
    sizes: tuple[tuple[int, int], ...]


def order_steps(panels: npt.NDArray[np.int8], sizes: tuple[int, ...] = (4, 3, 2)) -> OrderedPanels:
    """Reorder the steps of each panel so that as many as can be are taken ``sizes`` at a time.

    ``panels``: int8 [P, steps, NR, 4], of which no two neighbouring weights of one sign exceed 128 together.
    """
    weights = panels.reshape(*panels.shape[:3], 2, 2).astype(np.int16)
    signs = [np.maximum(weights, 0).sum(-1), -np.minimum(weights, 0).sum(-1)]
    # [P, steps, sums of one sign that fill a register]
    sums = np.concatenate(signs, -1).reshape(*panels.shape[:2], -1)
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


def _groups(sums: npt.NDArray[Any], steps: list[int], size: int) -> list[list[int]]:
    """Groups of ``size`` steps whose sums fit together: neighbours first, then whatever is left over."""
    whole = len(steps) // size * size
    neighbours = np.array(steps[:whole], np.int64).reshape(-1, size)
    fits = (sums[neighbours].sum(1) <= _LIMIT).all(-1)
    found = [[int(step) for step in group] for group in neighbours[fits]]
    rest = [int(step) for step in neighbours[~fits].reshape(-1)] + steps[whole:]
    # The largest first: they have the fewest partners.
    rest.sort(key=lambda step: -int(sums[step].max()))
    while len(rest) >= size:
        group = [rest.pop(0)]
        total = sums[group[0]].copy()
        while len(group) < size:
            partner = next((step for step in rest if (total + sums[step] <= _LIMIT).all()), None)
            if partner is None:
                break
            rest.remove(partner)
            group.append(partner)
            total += sums[partner]
        if len(group) == size:
            found.append(group)
    return found
