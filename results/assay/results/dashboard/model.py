"""What the dashboard shows: configurations, their figures over commits, and what is known of their builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = [
    "HEADLINES",
    "OURS",
    "Build",
    "Change",
    "Configuration",
    "Entry",
    "Line",
    "Machine",
    "Point",
    "Quality",
    "Roofline",
    "headlines",
]

OURS = "assay"
"""The name of our engine in records."""

HEADLINES = ("latency", "decode", "ttft")
"""The metrics that a row of the front page may stand for, the most telling first."""


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of everything here: immutable, and short in JSON."""


class Machine(Struct, frozen=True, kw_only=True):
    """Where figures were measured; those of different machines are never on one line.

    ``name``: the identity that records give it, empty where nothing ran.
    """

    name: str = ""
    cpu: str = ""
    cpus: int = 0


class Configuration(Struct, frozen=True, kw_only=True):
    """What must be equal for two figures to be on one line.

    ``sizes``: as ``batch=1, prompt=32``. ``threads`` is 0, and the machine nameless, where nothing ran.
    ``method``: the command that measured.
    """

    model: str
    weights: str
    sizes: str
    target: str
    scheme: str
    profile: str
    threads: int
    machine: Machine
    method: str = "bench"


class Point(Struct, frozen=True, kw_only=True):
    """A figure at a commit, in the unit of its line.

    ``time``: that of the commit where it is known, else of the run, in ISO 8601, UTC. ``low`` and ``high``:
    its 95% interval, if it has one. ``dirty``: the checkout differed from the commit.
    """

    commit: str | None
    time: str
    value: float
    run: str
    low: float | None = None
    high: float | None = None
    dirty: bool = False


class Change(Struct, frozen=True, kw_only=True):
    """A change point: from the run at ``index`` of its line on, figures are ``ratio`` times those before.

    One that is not ``confirmed`` rests on the last one or two commits alone.
    """

    index: int
    ratio: float
    confirmed: bool = True


class Line(Struct, frozen=True, kw_only=True):
    """One metric of one engine over commits, oldest first; an engine's name is ``assay`` for ours.

    ``higher``: more is better.
    """

    metric: str
    engine: str
    unit: str
    higher: bool
    points: tuple[Point, ...]
    changes: tuple[Change, ...] = ()


class Quality(Struct, frozen=True, kw_only=True):
    """How near outputs are to the reference's: the worst cosine similarity and absolute error of a build.

    ``perplexity``: of a language model, where it was measured.
    """

    reference: str
    cosine: float
    absolute_error: float
    perplexity: float | None = None


class Roofline(Struct, frozen=True, kw_only=True):
    """``fraction`` of what the machine could do that kernels reach; ``bound`` by what most time is bound."""

    fraction: float
    bound: str


class Build(Struct, frozen=True, kw_only=True):
    """What an artifact, or a profile of it, says of one configuration.

    ``executed``: whether its code ever ran natively, under an emulator, or never. ``size`` in bytes.
    """

    model: str
    weights: str
    target: str
    scheme: str
    profile: str
    executed: Literal["native", "emulated", "never"] = "native"
    size: int | None = None
    quality: Quality | None = None
    rooflines: Mapping[int, Roofline] = {}


class Entry(Struct, frozen=True, kw_only=True):
    """A configuration with all of its lines.

    ``ratios``: how many times better ours was than a peer in the same run, over commits; their unit is
    ``ratio``, and their engine the peer.
    """

    configuration: Configuration
    lines: tuple[Line, ...]
    ratios: tuple[Line, ...] = ()
    build: Build | None = None

    def line(self, metric: str, engine: str = OURS) -> Line | None:
        """The line of ``metric`` of ``engine``, if there is one."""
        found = (line for line in self.lines if line.metric == metric and line.engine == engine)
        return next(found, None)


def headlines(entry: Entry) -> list[str]:
    """The metrics of ours that get a row on the front page; the first at hand where none is a headline."""
    ours = [line.metric for line in entry.lines if line.engine == OURS]
    return [metric for metric in HEADLINES if metric in ours] or ours[:1]
