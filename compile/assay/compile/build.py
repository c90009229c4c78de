"""A build: export, compile, verify, seal. What is not verified is not an artifact."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.compile import stamps
from assay.compile.cache import BuildCache, installed_versions, key_of, source_digest
from assay.compile.decoders.interface import DecoderOptions
from assay.compile.decoders.text_files import text_digests
from assay.compile.describe import TOOLS, describe
from assay.compile.merge import write_levels
from assay.compile.native.platforms import find_platform, for_platform
from assay.compile.profiles import Profile, profiles
from assay.compile.quantize.prepare import AppliedScheme, Calibration, apply_plan, default_scheme, find_plan
from assay.compile.records import Found, find_records
from assay.compile.targets import AnyTarget, Target, find_targets
from assay.compile.targets.microarchitecture import named_microarchitectures
from assay.compile.variant import Variant, compile_variant
from assay.compile.verification import can_execute, emulator_of, verified
from assay.errors import ArtifactError, StorageError, UsageError
from assay.models.decoders.spec import DecoderSpec
from assay.models.export import CanonicalModel
from assay.models.spec import ModelSpec
from assay.progress import Progress, SilentProgress
from assay.runtime.artifact import MANIFEST_DIGEST, open_artifact, write_artifact
from assay.runtime.manifest import Manifest

if TYPE_CHECKING:
    from assay.compile.pgo.rebuild import Guide

__all__ = ["BuildResult", "build_artifact", "cached_build", "scratch_folder"]


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build gave: where it is, its manifest, seconds of each step, and whether the cache had it.

    ``build_seconds`` is what compiling and verifying took, also where that was earlier; None where it is not
    known. ``notes`` are worth telling whoever asked for the build.
    """

    path: Path
    manifest: Manifest
    canonical: CanonicalModel
    seconds: dict[str, float] = field(default_factory=dict)
    cached: bool = False
    build_seconds: float | None = None
    notes: tuple[str, ...] = ()


class _TimedProgress:
    """Passes steps on, and keeps how long each took."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with self.inner.step(name):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def build_artifact(
    spec: ModelSpec,
    *,
    target: str | Sequence[str] = "native",
    scheme: str | None = None,
    overrides: Sequence[str] = (),
    calibration: Path | None = None,
    profile: str = "release",
    output: Path | Callable[[str], Path] | None = None,
    cache: Path | None = None,
    packed: bool = False,
    records: Sequence[Path] | None = None,
    guide: Guide | None = None,
    decoder: DecoderOptions | None = None,
    platform: str | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build ``spec`` for ``target``; without ``output`` the artifact stays in the cache.

    Several targets, as a sequence of names or one string with commas, make one artifact of several levels.
    Without ``scheme`` it is that of ``default_scheme``; ``overrides`` (PATTERN=SCHEME) are schemes for single
    weights; ``calibration`` is a folder of recorded inputs for a scheme that calibrates. ``output`` may be a
    function from the name of the scheme to the path. ``records``: folders of tuning records in place of those
    that come with Assay. ``guide``: what guides the profile ``pgo``. ``decoder``: cache and limits of a model
    that generates text. ``platform``: the name of the machine and system whose bundle the artifact is for.
    Raises the errors of each step: ModelError and its kinds, UnknownNameError,
    UsageError, VerificationError, StorageError, TuningRecordError, WorkloadError, ProfileDataError.
    """
    timed = _TimedProgress(progress or SilentProgress())
    chosen, effort = find_targets(target), profiles()[profile]
    if platform is not None:
        chosen = tuple(for_platform(each, find_platform(platform)) for each in chosen)
    plan = None if scheme is None else find_plan(scheme, overrides)
    store = BuildCache(cache)
    canonical = store.canonical(spec, timed)
    plan = plan or find_plan(default_scheme(canonical), overrides)
    calibrated = Calibration.read(calibration, plan, canonical.spec)
    canonical, how = apply_plan(store, canonical, plan, timed, calibrated)
    known = _found_records(target, chosen, effort, records)
    options = decoder or DecoderOptions()
    variants = [Variant(tuning=each.tuning, decoder=options) for each in known]
    keys = [
        _build_key(canonical, each, how, effort, variant)
        for each, variant in zip(chosen, variants, strict=True)
    ]
    key = keys[0] if len(keys) == 1 else key_of(keys)
    guided = None
    if effort.guided and spec.decoder is not None:
        raise UsageError(f"The profile {effort.name} is not for models that generate text.")
    if effort.guided and platform is not None:
        raise UsageError(f"The profile {effort.name} measures here, and so is not for a platform.")
    if effort.guided:
        from assay.compile.pgo.rebuild import prepare

        cpus = [each for each in chosen if isinstance(each, Target)]
        if len(cpus) < len(chosen):
            raise UsageError(f"The profile {effort.name} is for CPUs.")
        guided = prepare(canonical, cpus, how, variants[0], guide, store.folder, timed)
        key = key_of([key, guided.key])
    with store.locked("artifacts", key) as entry:
        manifest = _known(entry)
        cached = manifest is not None
        start = time.perf_counter()
        if manifest is None and guided is not None:
            manifest = guided.build(entry)
        elif manifest is None and len(keys) == 1:
            manifest = _build(canonical, chosen[0], how, effort, variants[0], entry, timed)
        elif manifest is None:
            single: list[Path] = []
            for each, variant in zip(chosen, variants, strict=True):
                single.append(cached_build(store, canonical, each, how, effort, variant, timed))
            with timed.step("join levels"), scratch_folder(entry) as scratch:
                manifest = write_levels(entry, single, scratch)
        if not cached:
            stamps.keep_stamps(entry.with_suffix(stamps.SUFFIX), entry)
        build_seconds = _remembered(entry, None if cached else time.perf_counter() - start)
        notes = [note for each in known for note in each.notes]
        if guided is not None:
            notes += guided.notes(entry)
        path = entry
        if output is not None:
            place = output(plan.scheme.name) if callable(output) else output
            with timed.step("write artifact"):
                path = _written(store, entry, manifest, place, packed=packed)
    return BuildResult(
        path=path,
        manifest=manifest,
        canonical=canonical,
        seconds=timed.seconds,
        cached=cached,
        build_seconds=build_seconds,
        notes=tuple(dict.fromkeys(notes)),
    )


def cached_build(
    store: BuildCache,
    canonical: CanonicalModel,
    target: AnyTarget,
    scheme: AppliedScheme,
    profile: Profile,
    variant: Variant,
    progress: Progress,
) -> Path:
    """The entry of the cache that holds a build for one target, which is built where it is not there."""
    with store.locked("artifacts", _build_key(canonical, target, scheme, profile, variant)) as entry:
        if _known(entry) is None:
            _build(canonical, target, scheme, profile, variant, entry, progress)
        return entry


def _found_records(
    names: str | Sequence[str], chosen: Sequence[AnyTarget], profile: Profile, folders: Sequence[Path] | None
) -> list[Found]:
    """The tuning records for each target: those of the micro-architecture that was asked for by name."""
    if not profile.fuse:
        return [Found() for _ in chosen]
    named = named_microarchitectures(names)
    return [find_records(each.name, named.get(each.name), folders) for each in chosen]


def _remembered(entry: Path, seconds: float | None) -> float | None:
    """``seconds`` that a build took, kept beside its entry; or what was kept there by an earlier one.

    Not inside: the artifact must not depend on it.
    """
    note = entry.with_suffix(".seconds")
    if seconds is not None:
        note.write_text(repr(seconds))
        return seconds
    try:
        return float(note.read_text())
    except (OSError, ValueError):
        return None


def _known(entry: Path) -> Manifest | None:
    """The manifest of an earlier build, or None where there is none; a damaged one is removed."""
    if not entry.exists():
        return None
    record = entry.with_suffix(stamps.SUFFIX)
    whole = stamps.unchanged_note(record, entry) is not None
    try:
        manifest = open_artifact(entry, verify=not whole).manifest
    except ArtifactError:
        shutil.rmtree(entry)
        return None
    if not whole:
        stamps.keep_stamps(record, entry)
    return manifest


def _written(store: BuildCache, entry: Path, manifest: Manifest, place: Path, *, packed: bool) -> Path:
    """A copy of ``entry`` at ``place``, which is left alone where it is one already."""
    record = store.folder / "outputs" / key_of([os.path.realpath(place), packed])
    digest = (entry / MANIFEST_DIGEST).read_text()
    if stamps.unchanged_note(record, place) == digest:
        return place
    files = {name: entry / name for name in manifest.files}
    try:
        path = write_artifact(place, manifest, files, packed=packed, digests=manifest.files)
    except ArtifactError as error:
        shutil.rmtree(entry)
        raise StorageError(
            f"The build cache {store.folder} was damaged: {error}", hint="Build again."
        ) from error
    stamps.keep_stamps(record, place, digest)
    return path


def _build_key(
    canonical: CanonicalModel, target: AnyTarget, scheme: AppliedScheme, profile: Profile, variant: Variant
) -> str:
    interface = [asdict(item) for item in canonical.spec.inputs]
    described = [
        canonical.spec.name,
        canonical.spec.description,
        canonical.spec.licence,
        canonical.spec.weights,
    ]
    return key_of(
        [
            canonical.digest,
            canonical.source_digest,
            interface,
            described,
            asdict(canonical.spec.tolerance),
            asdict(target),
            scheme.key,
            profile.name,
            None if variant.tuning is None else variant.tuning.described(),
            _decoder_key(canonical.spec.decoder, variant.decoder),
            [source_digest(f"assay.{package}") for package in ("compile", "runtime")],
            installed_versions(TOOLS),
            can_execute(target),
            None if (emulator := emulator_of(target)) is None else emulator.description,
        ]
    )


def _decoder_key(decoder: DecoderSpec | None, options: DecoderOptions) -> list[object] | None:
    """What a build of a decoder depends on beside the model; None for any other."""
    if decoder is None:
        return None
    described = asdict(replace(decoder, tokenizer=None))
    return [described, asdict(options), text_digests(decoder)]


def _build(
    canonical: CanonicalModel,
    target: AnyTarget,
    scheme: AppliedScheme,
    profile: Profile,
    variant: Variant,
    entry: Path,
    progress: Progress,
) -> Manifest:
    """Compile into a scratch folder beside ``entry``, verify, and only then write ``entry``."""
    with scratch_folder(entry) as scratch:
        files, lowered = compile_variant(canonical, target, profile, scratch, progress, variant)
        manifest = describe(canonical, target, scheme, profile, lowered, variant.decoder)
        manifest = verified(canonical, target, profile, manifest, files, scratch, progress, variant=variant)
        with progress.step("write artifact"):
            write_artifact(entry, manifest, files)
    return open_artifact(entry, verify=False).manifest


@contextmanager
def scratch_folder(entry: Path) -> Iterator[Path]:
    """An empty folder beside ``entry``, whose lock is held: whatever lies there is of a dead process."""
    folder = entry.parent / f".build-{entry.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
