"""How much of the error each look at the data may spend.

Looking at data several times, each time at the full level, errs several times as often (Armitage, McPherson
and Rowe, JRSS A 132, 1969). An error-spending function says how much may be spent by which look, whatever
the data say (Lan and DeMets, Biometrika 70, 1983); this one is t to a power, of the family of Kim and DeMets
(Biometrika 74, 1987). What each look adds is spent as by Bonferroni: the sum bounds the error however looks
depend on each other, so that a machine that becomes noisier or quieter half-way cannot break it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["EXPONENT", "spend"]

# 1 spends evenly over rounds: clear cases end early. More keeps it for the last look.
EXPONENT = 1.0


def spend(looks: Sequence[int], level: float, exponent: float = EXPONENT) -> tuple[float, ...]:
    """The part of the error, of 1 in total, that each of ``looks`` spends; ``level`` is one side's total.

    ``looks`` are numbers of rounds, ascending. A signed-rank test of n rounds has no level below 2**-n. A
    look that could never reject spends nothing, and leaves its part to the next one.
    """
    spent, parts = 0.0, []
    for rounds in looks:
        part = (rounds / looks[-1]) ** exponent - spent
        usable = part * level >= 2.0**-rounds
        parts.append(part if usable else 0.0)
        spent += parts[-1]
    return tuple(parts)
