"""Run asv, and fail where a suite measured nothing, which asv itself takes for a success.

    python -m assay.ci.asv_run [ASV'S ARGUMENTS]

Without arguments they are ``run HEAD^!``. After a verb that measures it says for each suite how many figures
were measured, skipped and failed in this run. The exit code is 25 where a suite that ran measured nothing,
and else asv's own.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import AssayError, NothingMeasuredError, UsageError

__all__ = ["Suite", "main", "outcomes", "read_results", "run_asv"]

_VERBS = frozenset({"run", "continuous", "find"})
_OTHER_FILES = frozenset({"machine.json", "benchmarks.json"})

Row = dict[str, Any]
"""What asv keeps of one benchmark of one commit, by the name of the column."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """How many figures a suite, one file of benchmarks, gave, skipped, and failed to give."""

    name: str
    measured: int
    skipped: int
    failed: int


def read_results(folder: Path) -> dict[tuple[str, str], Row]:
    """What asv keeps below ``folder``, by the path of the file and the name of the benchmark.

    Files that asv itself could not read are left out.
    """
    found = {}
    for file in sorted(folder.glob("*/*.json")):
        if file.name in _OTHER_FILES:
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            for benchmark, values in content["results"].items():
                found[str(file), benchmark] = dict(zip(content["result_columns"], values, strict=False))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return found


def outcomes(before: Mapping[tuple[str, str], Row], after: Mapping[tuple[str, str], Row]) -> list[Suite]:
    """What the benchmarks gave that started between two readings of the results.

    One whose parameters are an empty set, as of settings without models, was asked for nothing.
    """
    counts: dict[str, list[int]] = {}
    for key, row in after.items():
        if row.get("started_at") == before.get(key, {}).get("started_at"):
            continue
        for value in _values(row):
            counts.setdefault(key[1].partition(".")[0], [0, 0, 0])[_kind(value)] += 1
    return [
        Suite(name=name, measured=measured, skipped=skipped, failed=failed)
        for name, (measured, skipped, failed) in sorted(counts.items())
    ]


def _values(row: Row) -> list[Any]:
    """One for each combination of parameters; asv writes a single None where all of them failed."""
    if row.get("result") is not None:
        return list(row["result"])
    return [None] * math.prod(len(values) for values in row.get("params") or [])


def _kind(value: Any) -> int:
    """0 for a number; 1 for none, which is how asv writes what was skipped; 2 for what failed."""
    if isinstance(value, int | float):
        return 0 if math.isfinite(value) else 1
    return 2


def run_asv(arguments: Sequence[str]) -> int:
    """Run asv in the current folder, print what each suite gave, and give asv's exit code.

    Raises NothingMeasuredError; UsageError where asv's configuration is missing or broken.
    """
    given = list(arguments or ["run", "HEAD^!"])
    verb = next((place for place, word in enumerate(given) if word in _VERBS), None)
    if verb is None or {"-h", "--help"} & set(given):
        return _asv(given)
    results = _results_folder(given)
    _describe_machine()
    if "--show-stderr" not in given:
        given.insert(verb + 1, "--show-stderr")  # asv keeps the reasons of what is skipped to itself else
    if given[verb] == "run" and "--record-samples" not in given:
        given.insert(verb + 1, "--record-samples")  # by default it keeps them in `asv continuous` alone
    before = read_results(results)
    code = _asv(given)
    suites = outcomes(before, read_results(results))
    for suite in suites:
        print(f"{suite.name}: {suite.measured} measured, {suite.skipped} skipped, {suite.failed} failed")
    empty = [suite.name for suite in suites if not suite.measured]
    if empty or not suites:
        raise NothingMeasuredError(
            f"Nothing was measured by {', '.join(empty) or 'any suite'}.",
            hint="asv says above what was skipped or failed. In an environment of the type existing it keeps "
            "results only with --set-commit-hash.",
        )
    return code


def _asv(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "asv", *arguments], check=False).returncode


def _results_folder(arguments: Sequence[str]) -> Path:
    from asv.config import Config
    from asv.util import UserError

    named = None
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--config":
            named = following
        elif word.startswith("--config="):
            named = word.partition("=")[2]
    try:
        return Path(Config.load(named).results_dir)
    except UserError as error:
        raise UsageError(f"asv cannot be run here: {error}") from error


def _describe_machine() -> None:
    """Let asv note what this machine is, which it otherwise asks for; what was noted before stays."""
    from asv.machine import MachineCollection

    if not Path(MachineCollection.get_machine_file_path()).is_file():
        command = [sys.executable, "-m", "asv", "machine", "--yes"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module for its exit codes."""
    try:
        return run_asv(sys.argv[1:] if arguments is None else arguments)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
