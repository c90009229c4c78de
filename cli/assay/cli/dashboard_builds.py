"""What artifacts and kernel profiles say of builds, for the dashboard."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from assay.errors import ArtifactError, ArtifactVersionError, RecordError

if TYPE_CHECKING:
    from assay.results.dashboard.model import Build, Quality, Roofline
    from assay.runtime.manifest import Level, Manifest

__all__ = ["artifact_builds", "cached_builds", "with_rooflines"]

_MANIFEST = "manifest.json"
_DIGEST = "manifest.sha256"


class _Kernel(msgspec.Struct, frozen=True, kw_only=True):
    seconds: float
    roof_seconds: float | None
    bound: str | None


class _Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of ``assay profile --json``."""

    model: str
    target: str
    scheme: str
    profile: str
    threads: int
    kernels: tuple[_Kernel, ...]


def artifact_builds(places: Iterable[Path]) -> list[Build]:
    """The levels of the artifacts at ``places``: artifacts, or folders with artifacts somewhere below.

    Raises ArtifactError for a damaged one, and for a place without any.
    """
    from assay.runtime.artifact import open_artifact

    found: list[Build] = []
    for place in places:
        if place.is_dir() and not (place / _MANIFEST).is_file():
            paths = sorted(path.parent for path in place.rglob(_MANIFEST))
        else:
            paths = [place]
        if not paths:
            raise ArtifactError(
                f"There is no artifact below {place}.", hint="assay build MODEL -o PATH makes one."
            )
        for path in paths:
            found += _builds(open_artifact(path, verify=False).manifest)
    return found


def cached_builds(folder: Path, digests: Collection[str]) -> list[Build]:
    """The levels of the artifacts in the build cache with these digests; damaged ones are left out."""
    from assay.runtime.artifact import open_artifact

    found: list[Build] = []
    for path in sorted(folder.glob(f"*/{_DIGEST}")):
        try:
            if f"sha256:{path.read_text().split()[0]}" in digests:
                found += _builds(open_artifact(path.parent, verify=False).manifest)
        except (OSError, UnicodeDecodeError, IndexError, ArtifactError, ArtifactVersionError):
            continue  # a cache: what is there is used
    return found


def _builds(manifest: Manifest) -> Iterator[Build]:
    from assay.results.dashboard.model import Build

    for level in manifest.levels:
        yield Build(
            model=manifest.model.name,
            weights=manifest.model.weights,
            target=level.target.name,
            scheme=manifest.scheme,
            profile=manifest.profile,
            executed=level.executed.value,
            size=sum(file.bytes for file in manifest.files.values()),
            quality=_quality(level),
        )


def _quality(level: Level) -> Quality | None:
    from assay.results.dashboard.model import Quality

    cases = level.verification.cases
    if not cases:
        return None
    return Quality(
        reference=level.verification.reference,
        cosine=min(case.cosine_similarity for case in cases),
        absolute_error=max(case.max_absolute_error for case in cases),
    )


def with_rooflines(builds: Iterable[Build], places: Iterable[Path]) -> list[Build]:
    """The builds with what kernel profiles say: files of ``assay profile --json``, or folders of such.

    Raises RecordError for a file that is none.
    """
    from assay.results.dashboard.model import Build

    known = {(build.model, build.target, build.scheme, build.profile): build for build in builds}
    for place in places:
        for path in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            profile = _read_profile(path)
            roofline = _roofline(profile)
            if roofline is None:
                continue
            name = (profile.model, profile.target, profile.scheme, profile.profile)
            build = known.get(name) or Build(
                model=profile.model,
                weights="trained",
                target=profile.target,
                scheme=profile.scheme,
                profile=profile.profile,
            )
            rooflines = {**build.rooflines, profile.threads: roofline}
            known[name] = msgspec.structs.replace(build, rooflines=rooflines)
    return list(known.values())


def _read_profile(path: Path) -> _Profile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Profile)
    except OSError as error:
        raise RecordError(f"The kernel profile {path} cannot be read: {error.strerror or error}.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(
            f"{path} is no kernel profile: {error}.", hint="assay profile ARTIFACT --json > FILE"
        ) from error


def _roofline(profile: _Profile) -> Roofline | None:
    """The roof's time over that of all kernels that have a roof, and what bounds most of their time."""
    from assay.results.dashboard.model import Roofline

    kernels = [each for each in profile.kernels if each.roof_seconds is not None and each.seconds > 0]
    seconds = sum(kernel.seconds for kernel in kernels)
    if not seconds:
        return None
    bounds: dict[str, float] = {}
    for kernel in kernels:
        bounds[kernel.bound or "unknown"] = bounds.get(kernel.bound or "unknown", 0.0) + kernel.seconds
    return Roofline(
        fraction=sum(kernel.roof_seconds or 0.0 for kernel in kernels) / seconds,
        bound=max(bounds, key=lambda bound: bounds[bound]),
    )
