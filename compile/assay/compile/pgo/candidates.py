"""The rebuild: candidates for the code of all sizes and of single ones, each measured before it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from assay.compile.build import cached_build, scratch_folder
from assay.compile.cache import BuildCache
from assay.compile.lower import kernel_workloads
from assay.compile.pgo.assemble import Code, Files, assemble, code_of, code_of_artifact, label, library_for
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
from assay.compile.variant import Variant, compile_variant
from assay.compile.verification import verified
from assay.models.inputs import make_inputs
from assay.runtime.artifact import open_artifact, write_artifact
from assay.runtime.manifest import Manifest

if TYPE_CHECKING:
    from assay.compile.quantize.prepare import AppliedScheme
    from assay.compile.targets import Target
    from assay.models.export import CanonicalModel
    from assay.progress import Progress

__all__ = ["Guided"]


@dataclass(frozen=True, kw_only=True)
class Guided:
    """A profile-guided build that was prepared; ``why_not`` says, if so, why it is release's.

    ``key``: of what guides it. ``threads``: with how many to measure. ``budget``: seconds for the search.
    """

    canonical: CanonicalModel
    target: Target
    scheme: AppliedScheme
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
            main, special = self._released(), []
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
    ) -> Code:
        """The code for all sizes: release's, or one that was measured to be faster."""
        choices = self._search(profile, workloads, default, hot, None)
        # Code for all sizes also runs those that the workload lacks, where several threads may well pay.
        serial = frozenset() if self.guided.canonical.spec.symbolic_dims else serial_kernels(profile)
        kept = self._released()
        if not choices and not serial:
            return kept
        tuning = Tuning(choices={**self._base(), **choices}, serial_kernels=serial)
        candidate = self._compile(Variant(tuning=tuning))
        what = _described(choices, serial)
        if self._is_faster(self._stage(kept, []), self._stage(candidate, []), self._all_cases(), "all sizes"):
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
        main: Code,
    ) -> list[Code]:
        """Code for the hot sizes, those that were measured to be faster than the code for all."""
        if not hot:
            return []
        base = dict(main.tuning.choices)
        choices = {**self._search(profile, workloads, default, hot, base), **base}
        codes = []
        for sizes in hot:
            variant = Variant(library=library_for(sizes), bound=dict(sizes), tuning=Tuning(choices=choices))
            codes.append(self._compile(variant))
        codes = self._with_serial_kernels(main, codes)
        cases = [case for case in self.guided.cases if any(case.sizes == code.sizes for code in codes)]
        before, after = self._stage(main, []), self._stage(main, codes)
        found = self._compare(before, after, cases, "single sizes")
        kept = []
        for code in codes:
            own = [each for each in found if each.sizes == code.sizes]
            what = f"code for {label(code.sizes)}"
            if _gains(own):
                kept.append(code)
                self.kept.append(what)
            else:
                self.dropped.append(what)
        return kept

    def _with_serial_kernels(self, main: Code, codes: list[Code]) -> list[Code]:
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

    def _compile(self, variant: Variant) -> Code:
        guided, folder = self.guided, self._folder()
        files, lowered = compile_variant(
            guided.canonical, guided.target, profiles()["pgo"], folder, guided.progress, variant
        )
        return code_of(variant, files, lowered)

    def _released(self) -> Code:
        return code_of_artifact(self.release, self.guided.variant.tuning)

    def _stage(self, main: Code, special: Sequence[Code], extra: Files | None = None) -> Path:
        """An artifact of this code that nobody verified yet, in the scratch folder."""
        folder = self._folder()
        manifest, files = assemble(self.release, main, special, folder)
        return write_artifact(folder / "artifact", manifest, {**files, **(extra or {})})

    def _compare(
        self, first: Path, second: Path, cases: Sequence[WorkloadCase], what: str
    ) -> list[Comparison]:
        with self._step(f"measure code for {what}"):
            return compare_artifacts(
                first, second, cases, self.guided.threads, self._folder(), level=self.guided.target.name
            )

    def _is_faster(self, first: Path, second: Path, cases: Sequence[WorkloadCase], what: str) -> bool:
        return _gains(self._compare(first, second, cases, what))

    def _beside_release(self, main: Code, special: Sequence[Code]) -> list[Comparison]:
        """The whole beside release on the whole workload; nothing where it is release's code."""
        if not self.kept:
            return []
        return self._compare(
            self.release.location, self._stage(main, special), self._all_cases(), "the whole workload"
        )

    def _all_cases(self) -> list[WorkloadCase]:
        """The workload, and the default sizes where it lacks them: the rebuild must not lose there either."""
        spec, cases = self.guided.canonical.spec, list(self.guided.cases)
        default = spec.default_sizes()
        if all(dict(case.sizes) != default for case in cases):
            cases.append(WorkloadCase(name="default", inputs=make_inputs(spec), sizes=default))
        return cases

    def _report(self, main: Code, special: Sequence[Code], comparisons: Sequence[Comparison]) -> Report:
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
        self, entry: Path, main: Code, special: Sequence[Code], profile: ProfileData, report: Report
    ) -> None:
        guided, folder = self.guided, self._folder()
        manifest, files = assemble(self.release, main, special, folder)
        write_profile(folder / "profile.json", profile)
        files[PROFILE_FILE] = folder / "profile.json"
        files[REPORT_FILE] = encode_report(report)
        manifest = verified(
            guided.canonical, guided.target, profiles()["pgo"], manifest, files, folder, guided.progress,
            variant=guided.variant,
        )  # fmt: skip
        with self._step("write artifact"):
            write_artifact(entry, manifest, files)


def _gains(comparisons: Sequence[Comparison]) -> bool:
    """Whether something is faster and nothing slower."""
    return any(each.faster for each in comparisons) and not any(each.slower for each in comparisons)


def _described(choices: Mapping[str, Choice], serial: frozenset[str]) -> str:
    parts = [f"{len(choices)} tiles"] if choices else []
    return " and ".join([*parts, *([f"{len(serial)} kernels on one thread"] if serial else [])])


def _notes(kept: Sequence[str], comparisons: Sequence[Comparison]) -> list[str]:
    """What the user is told."""
    if not kept:
        return ["Nothing was measured to be faster than release on this workload, so its code is kept."]
    notes = [f"Kept {'; '.join(kept)}."]
    for each in comparisons:
        at = f" at {label(each.sizes)}" if each.sizes else ""
        threads = "1 thread" if each.threads == 1 else f"{each.threads} threads"
        notes.append(
            f"Release takes {each.ratio:.2f} times as long{at} with {threads} "
            f"({each.low:.2f} to {each.high:.2f})."
        )
    return notes
