"""Record process runs of identical code: ``python -m assay.ci.gate.trials.recorder FILE --builds DIR``.

FILE gets a line for each pair of processes, with every sample, until the program is ended; started again, it
goes on. Pairs whose processes take turns alternate with pairs that run one after the other, as the processes
of other tools do; in stretches, a load generator runs beside.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec

from assay.ci.gate.trials.lines import append_line, cut_last_line, read_lines
from assay.ci.gate.trials.load_generator import loaded
from assay.ci.gate.trials.subjects import Subject, build_subjects
from assay.ci.gate.turns import TurnRun, take_turns
from assay.errors import AssayError

__all__ = ["RecordedPair", "main", "record"]

# Rounds in a row with the load generator, or without.
_STRETCH = 60
_TIMEOUT_SECONDS = 120.0


class RecordedPair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two process runs of the same code, by benchmark. ``start`` is in seconds since 1970.

    ``in_turn``: whether the processes took turns. ``load`` is the load average of a minute at the start.
    """

    in_turn: bool
    loaded: bool
    start: float
    load: float
    runs: dict[str, tuple[TurnRun, TurnRun]]


def record(subjects: Sequence[Subject], first: int = 0) -> Iterator[RecordedPair]:
    """Pair after pair, the first one numbered ``first``."""
    number = first
    while True:
        with_load = number // _STRETCH % 3 == 2
        with loaded() if with_load else nullcontext():
            while True:
                yield _pair(subjects, number, with_load=with_load)
                number += 1
                if number % _STRETCH == 0:
                    break


def _pair(subjects: Sequence[Subject], number: int, *, with_load: bool) -> RecordedPair:
    generator, in_turn = random.Random(number), number % 2 == 0
    order = generator.sample(subjects, len(subjects))
    load, start = os.getloadavg()[0], time.time()
    pairs = [(one.base, one.heads[0.0]) for one in order]
    runs = take_turns(pairs, generator, timeout=_TIMEOUT_SECONDS, in_turn=in_turn)
    return RecordedPair(
        in_turn=in_turn,
        loaded=with_load,
        start=start,
        load=load,
        runs={one.name: both for one, both in zip(order, runs, strict=True)},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.gate.trials.recorder", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--builds", type=Path, required=True, help="folder for what is measured, kept")
    parser.add_argument("--count", type=int, default=sys.maxsize, help="end when the file has so many pairs")
    options = parser.parse_args(arguments)
    try:
        subjects = build_subjects(options.builds)
        cut_last_line(options.file)
        done = len(read_lines(options.file, RecordedPair))
        if done >= options.count:
            return 0
        for number, pair in enumerate(record(subjects, done), start=done + 1):
            append_line(options.file, pair)
            if number >= options.count:
                break
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
