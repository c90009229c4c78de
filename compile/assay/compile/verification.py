"""What a build gave, compared with ONNX Runtime: natively, emulated, or by a form of it that runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from assay.compile.decoders.verification import cases_with_tolerance
from assay.compile.describe import library_name, target_info, weights_of
from assay.compile.device_execution import device_note, is_emulated, why_not_on_device
from assay.compile.divergence import first_divergence
from assay.compile.emulation.finding import Emulator, find_emulator
from assay.compile.emulation.gpu.execution import emulated_form, emulation_note, run_emulated
from assay.compile.emulation.user_mode import emulator_note
from assay.compile.lower import Lowered
from assay.compile.profiles import Profile
from assay.compile.targets import AnyTarget, GpuTarget, Target, find_target
from assay.compile.targets.target import DotProduct, Launcher
from assay.compile.variant import Variant, compile_variant
from assay.compile.verify import EMULATED_SECONDS, Case, compare_outputs, reference_version, run_artifact
from assay.errors import CpuFeatureError, EmulatorError, VerificationError
from assay.models.export import CanonicalModel
from assay.models.spec import Array, Tolerance
from assay.progress import Progress
from assay.runtime.artifact import write_artifact
from assay.runtime.cpu import canonical_machine, check_features, check_triple
from assay.runtime.manifest import Execution, Manifest, Verification, VerifiedCase
from assay.runtime.plan import plan_file

__all__ = ["can_execute", "emulator_of", "verified"]


def emulator_of(target: AnyTarget) -> Emulator | None:
    """What executes the code of a target for another CPU here, if anything."""
    return None if isinstance(target, GpuTarget) else find_emulator(target)


def can_execute(target: AnyTarget) -> str | None:
    """None where this machine can run the target's code, else why not."""
    if isinstance(target, GpuTarget):
        return why_not_on_device(target)
    try:
        check_triple(target.triple)
        check_features(target.features)
    except CpuFeatureError as error:
        return error.message
    return None


def _stand_in(target: AnyTarget) -> Target | None:
    """``target``'s schedules with this machine's instructions, or None on another kind of machine."""
    if isinstance(target, GpuTarget):
        return None
    try:
        host = find_target("native")
    except CpuFeatureError:
        return None
    machine, host_machine = (canonical_machine(each.triple.partition("-")[0]) for each in (target, host))
    if machine != host_machine:
        return None
    unit = target.vector_unit
    plain = {DotProduct.VNNI: DotProduct.WIDENED, DotProduct.AMX: DotProduct.TILES}
    if unit.bits > host.vector_unit.bits:
        # LLVM aborts on an instruction for vectors that the CPU has not.
        plain[DotProduct.MULTIPLY_ADD] = DotProduct.WIDENED
    unit = replace(unit, dot=plain.get(unit.dot, unit.dot))
    return replace(
        target,
        triple=host.triple,
        cpu=host.cpu,
        features=host.features,
        attributes=host.attributes,
        vector_unit=unit,
    )


def verified(
    canonical: CanonicalModel,
    target: AnyTarget,
    profile: Profile,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    scratch: Path,
    progress: Progress,
    *,
    variant: Variant,
) -> Manifest:
    """The manifest with what verification found; raises VerificationError.

    Where this machine lacks the target's instructions, the same schedules are compiled a second time for
    those that it has, and that is verified: it proves the loops, not the code, and the manifest says so.
    """
    reason = can_execute(target)
    note, staged, ran = None, manifest, target
    emulator = None if reason is None else emulator_of(target)
    if isinstance(target, GpuTarget):
        note = device_note(target)
        if reason is not None:
            form = emulated_form(target)
            if form is None:
                return _concluded(manifest, Execution.NEVER, note, [])
            note += f" {emulation_note(target, form)}"
            if form is not target:
                folder = scratch / "stand-in"
                folder.mkdir()
                files, lowered = compile_variant(canonical, form, profile, folder, progress, variant)
                staged = _standing_in(manifest, form, lowered)
    elif emulator is not None:
        note = emulator_note(emulator.description)
    elif reason is not None:
        note = (
            "Compiled, never executed: the machine that built it lacks the target's instructions or system."
        )
        stand_in = _stand_in(target)
        if stand_in is None:
            return _concluded(manifest, Execution.NEVER, note, [])
        note += f" The errors are those of the same schedules compiled for {stand_in.cpu}."
        folder = scratch / "stand-in"
        folder.mkdir()
        files, lowered = compile_variant(canonical, stand_in, profile, folder, progress, variant)
        staged, ran = _standing_in(manifest, stand_in, lowered), stand_in
    with progress.step("run ONNX Runtime"):
        sizes = [each.sizes for each in staged.levels[0].specializations]
        slow = _is_slow(target, reason, emulator)
        cases, tolerance = cases_with_tolerance(canonical, variant.decoder, sizes, few=slow)
    with progress.step("verify"):
        place = write_artifact(scratch / "staged", staged, files)
        run = partial(run_artifact, level=ran.name) if emulator is None else emulator.run
        if emulator is None and slow:
            run = partial(run_artifact, level=ran.name, seconds=EMULATED_SECONDS)
        if isinstance(target, GpuTarget) and reason is not None:
            run = partial(run_emulated, level=ran.name)
        try:
            outputs = run(place, cases)
        except EmulatorError as error:
            if not isinstance(target, GpuTarget):
                raise
            note = f"{device_note(target)} Nor was its source run on the CPU: {error.message}"
            return _concluded(manifest, Execution.NEVER, note, [])
        compared = _check(outputs, canonical, cases, tolerance, ran, progress)
    executed = Execution.NEVER if emulator is None else Execution.EMULATED
    if reason is None:
        on_emulated = isinstance(target, GpuTarget) and is_emulated(target)
        executed = Execution.EMULATED if on_emulated else Execution.NATIVE
    return _concluded(manifest, executed, note, compared)


def _is_slow(target: AnyTarget, reason: str | None, emulator: Emulator | None) -> bool:
    """Whether an emulator runs the code of ``target``, or the CPU in the place of a GPU."""
    if isinstance(target, GpuTarget):
        return reason is not None or is_emulated(target)
    return emulator is not None


def _standing_in(manifest: Manifest, stand_in: AnyTarget, lowered: Lowered) -> Manifest:
    """The manifest of a stand-in's artifact, whose weights may be packed in another way."""
    level = manifest.levels[0]
    library = library_name(stand_in)
    plan = None if lowered.plan is None else plan_file(library)
    entry = msgspec.structs.replace(level.entry, library=library, plan=plan, weights=tuple(lowered.weights))
    level = msgspec.structs.replace(level, target=target_info(stand_in, lowered.plan), entry=entry)
    return msgspec.structs.replace(manifest, levels=(level,), weights=weights_of(lowered))


def _concluded(
    manifest: Manifest, executed: Execution, note: str | None, cases: Sequence[VerifiedCase]
) -> Manifest:
    """The manifest of one level with what verification found."""
    verification = Verification(reference=reference_version(), note=note, cases=tuple(cases))
    level = msgspec.structs.replace(manifest.levels[0], executed=executed, verification=verification)
    return msgspec.structs.replace(manifest, levels=(level,))


def _check(
    outputs: list[dict[str, Array]],
    canonical: CanonicalModel,
    cases: list[Case],
    tolerance: Tolerance,
    target: AnyTarget,
    progress: Progress,
) -> list[VerifiedCase]:
    try:
        return compare_outputs(outputs, cases, tolerance)
    except VerificationError as error:
        if isinstance(target, GpuTarget) or target.launcher is Launcher.PLAN or canonical.spec.decoder:
            raise
        with progress.step("look for the operator that diverges first"):
            culprit = first_divergence(canonical, cases, target)
        raise VerificationError(
            f"{error.message} {culprit}",
            hint="Nothing was written. If the model is right, please report this with the model.",
        ) from error
