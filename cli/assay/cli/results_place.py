"""Where the records of measurements lie: options that the verbs over them share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.results.store import Store

__all__ = ["default_results", "open_results", "parse_since", "results_of_asv", "results_option"]

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"d": 1, "w": 7}

results_option = click.option(
    "--results",
    "place",
    envvar="ASSAY_RESULTS",
    show_envvar=True,
    metavar="FOLDER|URL",
    help="Where the records are: a folder of JSON files, or a database such as "
    "postgresql://USER@HOST/DATABASE.  [default: results/runs and results/asv of the checkout, or of the "
    "current folder]",
)


def default_results() -> Path:
    """The folder that `assay bench` writes records to."""
    from assay.benchmarks.provenance import find_checkout

    checkout = find_checkout()
    return (checkout.root if checkout else Path()) / "results" / "runs"


def results_of_asv() -> Path:
    """The folder that asv keeps its results in, by ``asv.conf.json``."""
    return default_results().with_name("asv")


def open_results(place: str | None) -> Store:
    """The store at ``place``, or that of what `assay bench` and asv have left here. Raises as open_store."""
    from assay.results.store import open_store

    if place is not None:
        return open_store(place)
    return open_store(default_results(), beside=[results_of_asv()])


def parse_since(text: str, now: datetime | None = None) -> datetime:
    """A date or time of ISO 8601, or so many days or weeks ago, such as 30d or 4w. Raises UsageError."""
    from assay.results.series import parse_time

    number, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS and number.isdecimal():
            return (now or datetime.now(UTC)) - timedelta(days=int(number) * _UNITS[unit])
        return parse_time(text)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is no time.", hint="Give a date such as 2026-01-31, or days or weeks ago: 30d, 4w."
        ) from None
