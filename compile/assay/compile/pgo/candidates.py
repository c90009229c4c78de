"""The rebuild: candidates for the code of all sizes and of single ones, each measured before it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from assay.compile.build import Variant, cached_build, compile_variant, scratch_folder, verified
from assay.compile.cache import BuildCache
from assay.compile.describe import LIBRARY
from assay.compile.lower import kernel_workloads
from assay.compile.pgo.compare import Comparison, compare_artifacts
from assay.compile.pgo.data import ProfileData, merge_profiles, write_profile
from assay.compile.pgo.plan import Key, hot_sizes, key_of_sizes, questions, serial_kernels
from assay.compile.pgo.record import record_profile, with_workloads
from assay.compile.pgo.report import (
    PROFILE_FILE,
    REPORT_FILE,
    Report,
    decode_report,
    encode_report,
    measured,
)
from assay.compile.pgo.workload import WorkloadCase
from assay.compile.profiles import profiles
from assay.compile.schedules.choices import Choice, Tuning, Workload
from assay.compile.targets.microarchitecture import cpu_model
from assay.compile.tune.tuner import tune
from assay.runtime.artifact import WEIGHTS, open_artifact, write_artifact
from assay.runtime.manifest import Entry, Manifest, Specialization, Weight
from assay.runtime.weights import save_weights

if TYPE_CHECKING:
    from assay.compile.lower import Lowered
    from assay.compile.schemes import Scheme
    from assay.compile.targets import Target
    from assay.models.export import CanonicalModel
    from assay.models.spec import Array
    from assay.progress import Progress

__all__ = ["Guided"]

Files = dict[str, bytes | Path]


@dataclass(frozen=True, kw_only=True)
class _Code:
    """One library of an artifact: its files without weights, its entry and the arrays that it takes."""

    entry: Entry
    files: Files
    arrays: Mapping[str, Array]
    tuning: Tuning
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Guided:
    """A profile-guided build that was prepared; ``why_not`` says, if so, why it is release's.

    ``key``: of what guides it. ``threads``: with how many to measure. ``budget``: seconds for the search.
    """

    canonical: CanonicalModel
    target: Target
    scheme: Scheme
    variant: Variant
    cases: tuple[WorkloadCase, ...]
    profile: ProfileData | None
    threads: tuple[int, ...]
    budget: float
    strategy: str
    cache: Path
    progress: Progress
    key: str
    why_not: str | None

    def notes(self, entry: Path) -> list[str]:
        """What is worth telling of the build at ``entry``."""
        if self.why_not is not None:
            return [self.why_not]
        return list(decode_report(open_artifact(entry, verify=False).read(REPORT_FILE)).notes)

    def build(self, entry: Path) -> Manifest:
        """Write the artifact at ``entry``, whose lock is held. Raises VerificationError, StorageError."""
        release = cached_build(
            BuildCache(self.cache), self.canonical, self.target, self.scheme,
            profiles()["release"], self.variant, self.progress,
        )  # fmt: skip
        if self.why_not is not None:
            artifact = open_artifact(release, verify=False)
            files: Files = {name: artifact.path(name) for name in artifact.manifest.files}
            write_artifact(entry, artifact.manifest, files)
        else:
            with scratch_folder(entry) as scratch:
                _Rebuild(self, release, scratch).write(entry)
        return open_artifact(entry, verify=False).manifest


class _Rebuild:
    """One rebuild: the code that is kept so far, and what was measured and decided on the way."""

    def __init__(self, guided: Guided, release: Path, scratch: Path) -> None:
        self.guided = guided
        self.release = open_artifact(release, verify=False)
        self.scratch = scratch
        self.kept: list[str] = []
        self.dropped: list[str] = []
        self._folders = 0

    def write(self, entry: Path) -> None:
        """Measure, rebuild, measure again, verify, and write what is left."""
        guided = self.guided
        with self._step("record a profile"):
            profile = guided.profile or self._record(self.release.location, guided.cases)
        hot = hot_sizes(profile)
        default = key_of_sizes(guided.canonical.spec.default_sizes())
        workloads = self._workloads(profile, default)
        profile = with_workloads(
            profile,
            {key: {name: found.key for name, found in named.items()} for key, named in workloads.items()},
        )
        main = self._main(profile, workloads, default, hot)
        special = self._special(profile, workloads, default, hot, main)
        comparisons = self._beside_release(main, special)
        if any(each.slower for each in comparisons):
            self.dropped += [f"{what}, in the whole" for what in self.kept]
            self.kept.clear()
            main, special = self._release_code(), []
            comparisons = []
        report = self._report(main, special, comparisons)
        self._seal(entry, main, special, profile, report)

    def _step(self, name: str) -> AbstractContextManager[None]:
        return self.guided.progress.step(name)

    def _folder(self) -> Path:
        self._folders += 1
        folder = self.scratch / str(self._folders)
        folder.mkdir()
        return folder

    def _record(self, artifact: Path, cases: Sequence[WorkloadCase]) -> ProfileData:
        level = self.guided.target.name
        return merge_profiles(
            [
                record_profile(artifact, cases, threads, self._folder(), level=level)
                for threads in self.guided.threads
            ]
        )

    def _workloads(self, profile: ProfileData, default: Key) -> dict[Key, dict[str, Workload]]:
        """The workload of each kernel at the default sizes and at those that were seen."""
        keys = list(dict.fromkeys([default, *(key_of_sizes(sample.sizes) for sample in profile.runs)]))
        found = kernel_workloads(
            self.guided.canonical,
            self.guided.target,
            profiles()["release"],
            self.guided.progress,
            sizes=[dict(key) for key in keys],
            tuning=self.guided.variant.tuning,
        )
        return dict(zip(keys, found, strict=True))

    def _search(
        self, profile: ProfileData, workloads: Any, default: Key, hot: Any, main: Any
    ) -> dict[str, Choice]:
        """Confirmed choices for the hottest workloads, with half of the budget."""
        guided = self.guided
        asked = questions(profile, workloads, default, hot, main, guided.target.vector_unit)
        if not asked or guided.budget <= 0:
            return {}
        found = tune(
            asked,
            guided.target,
            budget=guided.budget / (2 if hot else 1),
            folder=guided.cache / "tuning",
            strategy=guided.strategy,
            progress=guided.progress,
        )
        return found.choices

    def _base(self) -> dict[str, Choice]:
        return dict(self.guided.variant.tuning.choices) if self.guided.variant.tuning else {}

    def _main(
        self,
        profile: ProfileData,
        workloads: Mapping[Key, Mapping[str, Workload]],
        default: Key,
        hot: Sequence[Mapping[str, int]],
    ) -> _Code:
        """The code for all sizes: release's, or one that was measured to be faster."""
        choices = self._search(profile, workloads, default, hot, None)
        serial = serial_kernels(profile)
        kept = self._release_code()
        if not choices and not serial:
            return kept
        tuning = Tuning(choices={**self._base(), **choices}, serial_kernels=serial)
        candidate = self._compile(Variant(tuning=tuning))
        what = _described(choices, serial)
        if self._is_faster(self._stage(kept, []), self._stage(candidate, []), self.guided.cases, "all sizes"):
            self.kept.append(f"for all sizes: {what}")
            return candidate
        self.dropped.append(f"for all sizes: {what}")
        return kept

    def _special(
        self,
        profile: ProfileData,
        workloads: Mapping[Key, Mapping[str, Workload]],
        default: Key,
        hot: Sequence[Mapping[str, int]],
        main: _Code,
    ) -> list[_Code]:
        """Code for the hot sizes, those that were measured to be faster than the code for all."""
        if not hot:
            return []
        base = dict(main.tuning.choices)
        choices = {**self._search(profile, workloads, default, hot, base), **base}
        codes = []
        for sizes in hot:
            variant = Variant(library=_library(sizes), bound=dict(sizes), tuning=Tuning(choices=choices))
            codes.append(self._compile(variant))
        codes = self._with_serial_kernels(main, codes)
        cases = [case for case in self.guided.cases if any(case.sizes == code.sizes for code in codes)]
        before, after = self._stage(main, []), self._stage(main, codes)
        found = self._compare(before, after, cases, "single sizes")
        kept = []
        for code in codes:
            own = [each for each in found if each.sizes == code.sizes]
            what = f"code for {_label(code.sizes)}"
            if _gains(own):
                kept.append(code)
                self.kept.append(what)
            else:
                self.dropped.append(what)
        return kept

    def _with_serial_kernels(self, main: _Code, codes: list[_Code]) -> list[_Code]:
        """The same code with those kernels on one thread that lose by several."""
        if len(self.guided.threads) == 1:
            return codes
        cases = [case for case in self.guided.cases if any(case.sizes == code.sizes for code in codes)]
        with self._step("record a profile of single sizes"):
            profile = self._record(self._stage(main, codes), cases)
        changed = []
        for code in codes:
            own = msgspec.structs.replace(
                profile, kernels=tuple(k for k in profile.kernels if k.sizes == dict(code.sizes))
            )
            serial = serial_kernels(own)
            if not serial:
                changed.append(code)
                continue
            tuning = Tuning(choices=code.tuning.choices, serial_kernels=serial)
            changed.append(
                self._compile(Variant(library=code.entry.library, bound=dict(code.sizes), tuning=tuning))
            )
        return changed

    def _compile(self, variant: Variant) -> _Code:
        guided, folder = self.guided, self._folder()
        files, lowered = compile_variant(
            guided.canonical, guided.target, profiles()["pgo"], folder, guided.progress, variant
        )
        files.pop(WEIGHTS, None)
        return _code(variant, files, lowered)

    def _release_code(self) -> _Code:
        """Release's code as it is."""
        (level,) = self.release.manifest.levels
        skipped = {WEIGHTS, self.release.manifest.tvm_runtime}
        files: Files = {
            name: self.release.path(name) for name in self.release.manifest.files if name not in skipped
        }
        return _Code(
            entry=level.entry,
            files=files,
            arrays=self.release.weights(),
            tuning=self.guided.variant.tuning or Tuning(choices={}),
        )

    def _stage(self, main: _Code, special: Sequence[_Code], extra: Files | None = None) -> Path:
        """An artifact of this code that nobody verified yet, in the scratch folder."""
        folder = self._folder()
        manifest, files = self._assemble(main, special, folder)
        return write_artifact(folder / "artifact", manifest, {**files, **(extra or {})})

    def _assemble(self, main: _Code, special: Sequence[_Code], folder: Path) -> tuple[Manifest, Files]:
        """Manifest and files of this code; weights that have the same bytes are kept once."""
        names: dict[tuple[Any, ...], str] = {}
        arrays: dict[str, Array] = {}

        def entry(code: _Code) -> Entry:
            taken = []
            for name, array in code.arrays.items():
                key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
                if key not in names:
                    own = name if name not in arrays else f"{_label(code.sizes) or 'main'}/{name}"
                    names[key] = own
                    arrays[own] = array
                taken.append(names[key])
            return msgspec.structs.replace(code.entry, weights=tuple(taken))

        entries = [entry(code) for code in (main, *special)]
        files: Files = {name: content for code in (main, *special) for name, content in code.files.items()}
        runtime = self.release.manifest.tvm_runtime
        files[runtime] = self.release.path(runtime)
        if arrays:
            save_weights(folder / WEIGHTS, arrays)
            files[WEIGHTS] = folder / WEIGHTS
        specializations = tuple(
            Specialization(sizes=dict(code.sizes), entry=each)
            for code, each in zip(special, entries[1:], strict=True)
        )
        (level,) = self.release.manifest.levels
        level = msgspec.structs.replace(level, entry=entries[0], specializations=specializations)
        weights = tuple(
            Weight(name=name, dtype=str(a.dtype), shape=a.shape, bytes=a.nbytes)  # type: ignore[arg-type]
            for name, a in arrays.items()
        )
        manifest = msgspec.structs.replace(
            self.release.manifest, profile="pgo", levels=(level,), weights=weights, files={}
        )
        return manifest, files

    def _compare(
        self, first: Path, second: Path, cases: Sequence[WorkloadCase], what: str
    ) -> list[Comparison]:
        with self._step(f"measure code for {what}"):
            return compare_artifacts(
                first, second, cases, self.guided.threads, self._folder(), level=self.guided.target.name
            )

    def _is_faster(self, first: Path, second: Path, cases: Sequence[WorkloadCase], what: str) -> bool:
        return _gains(self._compare(first, second, cases, what))

    def _beside_release(self, main: _Code, special: Sequence[_Code]) -> list[Comparison]:
        """The whole beside release on the whole workload; nothing where it is release's code."""
        if not self.kept:
            return []
        return self._compare(
            self.release.location, self._stage(main, special), self.guided.cases, "the whole workload"
        )

    def _report(self, main: _Code, special: Sequence[_Code], comparisons: Sequence[Comparison]) -> Report:
        base = self._base()
        choices = {
            key: choice.as_dict()
            for code in (main, *special)
            for key, choice in code.tuning.choices.items()
            if base.get(key) != choice
        }
        return Report(
            cpu=cpu_model(),
            notes=tuple(_notes(self.kept, comparisons)),
            kept=tuple(self.kept),
            dropped=tuple(self.dropped),
            choices=dict(sorted(choices.items())),
            serial_kernels={
                code.entry.library: tuple(sorted(code.tuning.serial_kernels)) for code in (main, *special)
            },
            beside_release=tuple(measured(each) for each in comparisons),
        )

    def _seal(
        self, entry: Path, main: _Code, special: Sequence[_Code], profile: ProfileData, report: Report
    ) -> None:
        guided, folder = self.guided, self._folder()
        manifest, files = self._assemble(main, special, folder)
        write_profile(folder / "profile.json", profile)
        files[PROFILE_FILE] = folder / "profile.json"
        files[REPORT_FILE] = encode_report(report)
        manifest = verified(
            guided.canonical, guided.target, profiles()["pgo"], manifest, files, folder, guided.progress,
            variant=guided.variant,
        )  # fmt: skip
        with self._step("write artifact"):
            write_artifact(entry, manifest, files)


def _code(variant: Variant, files: Files, lowered: Lowered) -> _Code:
    runtime = [name for name in files if name.rpartition("/")[2].startswith("libtvm_runtime")]
    return _Code(
        entry=Entry(function="main", library=variant.library, weights=tuple(lowered.weights)),
        files={name: content for name, content in files.items() if name not in runtime},
        arrays=lowered.weights,
        tuning=variant.tuning or Tuning(choices={}),
        sizes=dict(variant.bound),
    )


def _gains(comparisons: Sequence[Comparison]) -> bool:
    """Whether something is faster and nothing slower."""
    return any(each.faster for each in comparisons) and not any(each.slower for each in comparisons)


def _label(sizes: Mapping[str, int]) -> str:
    return ",".join(f"{name}={size}" for name, size in sorted(sizes.items()))


def _library(sizes: Mapping[str, int]) -> str:
    """The name of the library of code for these sizes."""
    parts = [
        f"{''.join(c if c.isalnum() else '_' for c in name)}{size}" for name, size in sorted(sizes.items())
    ]
    return LIBRARY.replace(".so", f"-{'-'.join(parts)}.so")


def _described(choices: Mapping[str, Choice], serial: frozenset[str]) -> str:
    parts = [f"{len(choices)} tiles"] if choices else []
    return " and ".join([*parts, *([f"{len(serial)} kernels on one thread"] if serial else [])])


def _notes(kept: Sequence[str], comparisons: Sequence[Comparison]) -> list[str]:
    """What the user is told."""
    if not kept:
        return ["Nothing was measured to be faster than release on this workload, so its code is kept."]
    notes = [f"Kept {'; '.join(kept)}."]
    for each in comparisons:
        at = f" at {_label(each.sizes)}" if each.sizes else ""
        threads = "1 thread" if each.threads == 1 else f"{each.threads} threads"
        notes.append(
            f"Release takes {each.ratio:.2f} times as long{at} with {threads} "
            f"({each.low:.2f} to {each.high:.2f})."
        )
    return notes
