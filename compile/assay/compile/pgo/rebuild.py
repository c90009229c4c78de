"""A profile-guided build: release, measured on a workload, and rebuilt where that spends its time.

Nothing replaces release's code but what was measured to be faster than it, in turn, by more than noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.compile.cache import key_of
from assay.compile.describe import interface_of
from assay.compile.pgo.candidates import Guided
from assay.compile.pgo.data import ProfileData, merge_profiles, read_profile
from assay.compile.pgo.workload import WorkloadCase, read_workload, representative_workload
from assay.compile.targets.microarchitecture import cpu_model
from assay.errors import CpuFeatureError, InterfaceError, ProfileDataError, UsageError
from assay.models.inputs import make_inputs
from assay.runtime.cpu import available_cores, check_features, check_triple

if TYPE_CHECKING:
    from assay.compile.quantize.prepare import AppliedScheme
    from assay.compile.targets import Target
    from assay.compile.variant import Variant
    from assay.models.export import CanonicalModel
    from assay.progress import Progress

__all__ = ["Guide", "prepare"]

_BUDGET_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What guides a build: a folder of recorded inputs, files of profile data, seconds for the search.

    ``threads``: the most to measure with (default: the physical cores that this process may use).
    """

    workload: Path | None = None
    profiles: tuple[Path, ...] = ()
    budget: float = _BUDGET_SECONDS
    threads: int | None = None
    strategy: str = "table"


def prepare(
    canonical: CanonicalModel,
    targets: Sequence[Target],
    scheme: AppliedScheme,
    variant: Variant,
    guide: Guide | None,
    cache: Path,
    progress: Progress,
) -> Guided:
    """Read what guides the build, before anything is built.

    Raises UsageError for several targets, WorkloadError and ProfileDataError for a workload or profile data
    that cannot be used.
    """
    guide = guide or Guide()
    if len(targets) > 1:
        raise UsageError(
            "A profile-guided build measures, so it is for one target.",
            hint="Build for each target on a machine that has it.",
        )
    profile = _profile_data(guide, canonical)
    cases = _cases(guide, profile, canonical)
    threads = guide.threads or available_cores()
    key = key_of(
        [_digest(cases), _digest_of(guide.profiles), guide.budget, guide.strategy, threads, cpu_model()]
    )
    return Guided(
        canonical=canonical,
        target=targets[0],
        scheme=scheme,
        variant=variant,
        cases=tuple(cases),
        profile=profile,
        threads=(1,) if threads == 1 else (1, threads),
        budget=guide.budget,
        strategy=guide.strategy,
        cache=cache,
        progress=progress,
        key=key,
        why_not=_why_not(cases, targets[0]),
    )


def _profile_data(guide: Guide, canonical: CanonicalModel) -> ProfileData | None:
    if not guide.profiles:
        return None
    profile = merge_profiles([read_profile(path) for path in guide.profiles])
    if profile.model.canonical_digest != canonical.digest:
        raise ProfileDataError(
            f"The profile is of another model ({profile.model.name}) than {canonical.spec.name} is now.",
            hint="Record the profile again: assay build MODEL --profile pgo --workload FOLDER.",
        )
    return profile


def _cases(guide: Guide, profile: ProfileData | None, canonical: CanonicalModel) -> list[WorkloadCase]:
    """The workload: a folder's, inputs of the sizes that the profile saw, or the specification's own."""
    spec = canonical.spec
    if guide.workload is not None:
        return read_workload(guide.workload, interface_of(spec))
    if profile is None:
        return representative_workload(spec)
    counts: dict[tuple[tuple[str, int], ...], int] = {}
    for sample in profile.runs:
        key = tuple(sorted(sample.sizes.items()))
        counts[key] = counts.get(key, 0) + sample.runs
    try:
        return [
            WorkloadCase(
                name=f"profiled-{i}", inputs=make_inputs(spec, dict(key), seed=i), sizes=dict(key), count=n
            )
            for i, (key, n) in enumerate(counts.items())
        ]
    except InterfaceError as error:
        raise ProfileDataError(f"The profile does not fit the model: {error.message}") from error


def _why_not(cases: Sequence[WorkloadCase], target: Target) -> str | None:
    """What keeps a build from being guided, in words."""
    if not cases:
        return (
            "There is no workload, so this is the release build: a file says nothing of how it is used. "
            "Record inputs with `assay run ARTIFACT --record FOLDER`, and build with --workload FOLDER."
        )
    try:
        check_triple(target.triple)
        check_features(target.features)
    except CpuFeatureError as error:
        return f"Nothing can be measured here, so this is the release build: {error.message}"
    return None


def _digest(cases: Sequence[WorkloadCase]) -> str:
    hasher = hashlib.sha256()
    for case in cases:
        hasher.update(repr((sorted(case.sizes.items()), case.count)).encode())
        for name, array in sorted(case.inputs.items()):
            hasher.update(name.encode() + b"\0" + array.tobytes())
    return hasher.hexdigest()


def _digest_of(paths: Sequence[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
