"""``assay-gate.toml``: what a repository's gate compares, and changes that are accepted in the open."""

from __future__ import annotations

import datetime
import difflib
import fnmatch
import re
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from assay.ci.gate.metrics import metrics
from assay.errors import UsageError

__all__ = ["FILE", "Accepted", "GateFile", "parse_fraction", "parse_gate_file"]

FILE = "assay-gate.toml"
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change that is known and wanted.

    ``benchmark`` is a glob over names such as ``silero-vad/threads=1``, or over the model's alone;
    ``metric`` one over metrics. A ``regression`` is accepted up to ``limit``, the relative worsening;
    ``missing`` and ``broken`` have none. It ends with the day ``expires``.
    """

    benchmark: _Text
    metric: _Text
    verdict: Literal["regression", "missing", "broken"] = "regression"
    limit: str | None = None
    reason: _Text
    author: _Text
    expires: datetime.date

    def covers(self, model: str, benchmark: str, metric: str) -> bool:
        """Whether it is about that benchmark and metric."""
        named = any(fnmatch.fnmatchcase(name, self.benchmark) for name in (model, benchmark))
        return named and fnmatch.fnmatchcase(metric, self.metric)

    def allows(self, verdict: str, ratio: float | None) -> bool:
        """Whether it allows a verdict, of a regression that of ``ratio`` (head over base)."""
        if verdict != self.verdict:
            return False
        # Of the limit itself, no more than the last bit.
        return self.limit is None or (ratio is not None and ratio - 1 <= parse_fraction(self.limit) + 1e-9)


class GateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the file; all but ``accept`` stand for the options of the same names."""

    models: tuple[_Text, ...] = ()
    base: str | None = None
    threshold: str | None = None
    confidence: str | None = None
    budget: float | None = None
    threads: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()
    target: str | None = None
    scheme: str | None = None
    profile: str | None = None
    size: tuple[str, ...] = ()
    accept: tuple[Accepted, ...] = ()


def parse_fraction(text: str) -> float:
    """A fraction from ``3%`` or ``0.03``. Raises UsageError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)\s*", text)
    if found is None:
        raise UsageError(f"{text!r} is no fraction: write 3% or 0.03.")
    return float(found[1]) / (100 if found[2] else 1)


def parse_gate_file(content: bytes | None, today: datetime.date | None = None) -> GateFile:
    """What the file's ``content`` says; nothing where there is none.

    Raises UsageError, naming the key, for what does not fit, and for an accepted change that has expired.
    """
    if content is None:
        return GateFile()
    try:
        values = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{FILE} cannot be read: {error}.") from error
    _check_keys(values, GateFile.__struct_fields__, "")
    accepted = values.get("accept", ())
    for number, entry in enumerate(accepted if isinstance(accepted, list) else (), start=1):
        if isinstance(entry, dict):
            _check_keys(entry, Accepted.__struct_fields__, f" of its accepted change {number}")
    try:
        found = msgspec.convert(values, GateFile)
    except msgspec.ValidationError as error:
        raise UsageError(f"{FILE} does not fit: {error}.") from error
    for entry in found.accept:
        _check_accepted(entry, today or datetime.datetime.now(datetime.UTC).date())
    return found


def _check_keys(values: dict[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            raise UsageError(f"{FILE} has no key {key!r}{where}.", hint=hint)


def _check_accepted(entry: Accepted, today: datetime.date) -> None:
    what = f"The accepted change of {entry.metric} of {entry.benchmark}"
    if not fnmatch.filter(list(metrics()), entry.metric):
        near = difflib.get_close_matches(entry.metric, list(metrics()), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(metrics())}."
        raise UsageError(f"{what} in {FILE} is about no metric.", hint=hint)
    if (entry.limit is None) == (entry.verdict == "regression"):
        needed = "needs a limit, such as 10%" if entry.limit is None else "takes no limit"
        raise UsageError(f"{what} in {FILE} {needed}: its verdict is {entry.verdict}.")
    if entry.limit is not None:
        parse_fraction(entry.limit)
    if entry.expires < today:
        raise UsageError(
            f"{what} expired on {entry.expires}: {entry.reason} ({entry.author}).",
            hint=f"Take it out of {FILE}, or give it another day if its reason still holds.",
        )
