"""Builds: an artifact in one file."""

from __future__ import annotations

import hashlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from assay.ci.farm.kinds.kind import JobKind, NonsenseError, Result
from assay.errors import AssayError
from assay.runtime.artifact import MANIFEST, open_artifact
from assay.runtime.atomic import replace_file

if TYPE_CHECKING:
    from assay.ci.farm.jobs import Job
    from assay.runtime.manifest import Manifest

__all__ = ["ARTIFACT", "KIND", "artifact_of"]

ARTIFACT = "artifact.assay"


def _run(job: Job, folder: Path, cache: Path | None) -> None:
    from assay.compile.build import build_artifact
    from assay.models.registry import find_model

    build_artifact(
        find_model(job.model), target=job.target, scheme=job.scheme, profile=job.profile,
        output=folder / ARTIFACT, packed=True, cache=cache,
    )  # fmt: skip


def artifact_of(result: Result) -> tuple[Manifest, str]:
    """The manifest of the artifact in a result, all digests recomputed, and its own. Raises NonsenseError."""
    if ARTIFACT not in result:
        raise NonsenseError("there is no artifact in it")
    with tempfile.TemporaryDirectory(prefix="assay-farm-") as name:
        path = Path(name) / ARTIFACT
        path.write_bytes(result[ARTIFACT])
        try:
            opened = open_artifact(path)
            return opened.manifest, f"sha256:{hashlib.sha256(opened.read(MANIFEST)).hexdigest()}"
        except AssayError as error:
            raise NonsenseError(f"its artifact is none: {error.message}") from error


def _check(job: Job, result: Result, _needed: Result, _seconds: float) -> None:
    from assay.models.registry import find_model

    manifest, _ = artifact_of(result)
    expected = (find_model(job.model).name, [job.target], job.scheme, job.profile)
    targets = [level.target.name for level in manifest.levels]
    found = (manifest.model.name, targets, manifest.scheme, manifest.profile)
    if found != expected:
        raise NonsenseError(f"its artifact is {found}, where {expected} was asked for")
    for level in manifest.levels:
        cases = level.verification.cases
        if not cases:
            raise NonsenseError(f"{level.target.name} was compared with nothing")
        for case in cases:
            errors = (case.max_absolute_error, case.max_relative_error)
            if not all(math.isfinite(each) and each >= 0 for each in errors):
                raise NonsenseError(f"the errors of {case.output} are {errors}")


def _keep(job: Job, result: Result, folder: Path) -> None:
    parts = (Path(job.model).stem, job.target, job.scheme, job.profile)
    path = folder / "artifacts" / f"{'-'.join(parts)}.assay"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        temporary.write_bytes(result[ARTIFACT])


KIND = JobKind(name="build", times=False, needs=None, run=_run, check=_check, keep=_keep)
