"""What all verbs that measure check before they build, and which engines they leave out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping

from assay.cli.output import Output
from assay.errors import BenchmarkError, MissingDependencyError

__all__ = ["check_plan", "choose_engines"]


def check_plan(known: Mapping[str, object], engines: Iterable[str], threads: Iterable[int]) -> None:
    """Raise an error for what would be missed only when everything is built and measured.

    MissingDependencyError without SciPy, UnknownNameError for an engine that is not ``known``, and
    UsageError for more threads than there are CPUs.
    """
    from assay.benchmarks.machine import choose_cpus

    if importlib.util.find_spec("scipy") is None:
        raise MissingDependencyError("scipy", "compile")
    for name in engines:
        known[name]
    choose_cpus(max(threads))


def choose_engines(
    names: Iterable[str], unavailable: Callable[[str], str | None], output: Output, subject: str
) -> list[str]:
    """The engines that can run ``subject``; one that cannot is left out with a word.

    ``unavailable`` says why an engine cannot, or None. Raises BenchmarkError where none is left.
    """
    chosen = []
    for name in names:
        reason = unavailable(name)
        if reason is None:
            chosen.append(name)
        else:
            output.note(f"{name} is left out: {reason}")
    if not chosen:
        raise BenchmarkError(f"No engine that was asked for can run {subject}.")
    return chosen
