"""What a kind of job is: how it runs in a process of a worker, and how its result is checked and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from assay.errors import AssayError

if TYPE_CHECKING:
    from assay.ci.farm.jobs import Job

__all__ = ["JobKind", "NonsenseError", "Result"]

Result: TypeAlias = Mapping[str, bytes]
"""What a job gives: contents of files by name."""


class NonsenseError(AssayError):
    """A result that cannot be that of the job: whoever gave it cannot be relied on."""


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """A kind of job.

    ``times``: whether it times something on the machine that it runs on, which it then needs for itself.
    ``needs``: the kind whose result, of the same model, target, scheme and profile, it takes as files.
    ``run(job, folder, cache)`` does it in ``folder``, where those files lie, and leaves its result there.
    ``check(job, result, needed, seconds)`` raises NonsenseError; ``needed`` is the result that it took,
    ``seconds`` how long it was away. ``keep(job, result, folder)`` puts the result below ``folder`` for
    users; doing it twice is as doing it once.
    """

    name: str
    times: bool
    needs: str | None
    run: Callable[[Job, Path, Path | None], None]
    check: Callable[[Job, Result, Result, float], None]
    keep: Callable[[Job, Result, Path], None]
