"""Canonical ONNX of a model, quantized for a build: kept in the build cache, with what quantizing cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from assay.compile import stamps
from assay.compile.cache import BuildCache, installed_versions, key_of, source_digest
from assay.compile.quantize.apply import Plan, Quantized, parse_override, quantize
from assay.compile.quantize.dequantize import stored_in_fewer_bits
from assay.compile.quantize.distortion import Distortion, distortion
from assay.compile.quantize.samples import Purpose, read_samples, representative_samples
from assay.compile.schemes import find_scheme
from assay.errors import UsageError
from assay.models.export.weights import save
from assay.models.spec import Tolerance
from assay.progress import Progress
from assay.runtime.manifest import OutputError, Quantization

if TYPE_CHECKING:
    from assay.models.export import CanonicalModel
    from assay.models.spec import Array, ModelSpec

__all__ = [
    "AppliedScheme",
    "Calibration",
    "apply_plan",
    "default_scheme",
    "find_plan",
    "output_errors",
    "quantization_of",
]

_FILE, _DATA_FILE, _NOTES = "quantized.onnx", "quantized.bin", "quantization.json"
_TOOLS = ("ml_dtypes", "numpy", "onnx", "onnxruntime", "scipy")
_ERROR_SAMPLES = 4
# Two engines that each round activations once differ from each other by up to the sum of both's errors.
_ENGINES = 2


@dataclass(frozen=True, kw_only=True)
class AppliedScheme:
    """What the manifest says of how weights are stored: the plan in one line, and what it cost."""

    name: str
    quantization: Quantization | None = None

    @property
    def key(self) -> tuple[str, str | None]:
        """What tells it from others: its name, and what it was calibrated on."""
        return self.name, None if self.quantization is None else self.quantization.calibration


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Recorded inputs in place of the compiler's own: their digest, and themselves where they are at hand."""

    digest: str
    samples: Sequence[Mapping[str, Array]] | None = None

    @staticmethod
    def read(folder: Path | None, plan: Plan, spec: ModelSpec) -> Calibration | None:
        """The cases of a folder as ``assay run --record`` writes it; None where there is no folder.

        Raises WorkloadError for the folder, UsageError where ``plan`` does not calibrate.
        """
        if folder is None:
            return None
        if not plan.needs_samples:
            raise UsageError(
                f"The scheme {plan.name} does not calibrate, so that --calibration says nothing."
            )
        samples = read_samples(folder, spec)
        digest = hashlib.sha256()
        for sample in samples:
            for name, array in sorted(sample.items()):
                digest.update(repr((name, str(array.dtype), array.shape)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return Calibration(digest=digest.hexdigest(), samples=samples)


class _Notes(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a quantized model."""

    digests: dict[str, str]
    quantization: Quantization
    absolute_tolerance: float


def find_plan(scheme: str, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a scheme and overrides (PATTERN=SCHEME), or of a plan's name, which holds both.

    Raises UnknownNameError and UsageError.
    """
    name, *more = scheme.split(",")
    return Plan(
        scheme=find_scheme(name), overrides=tuple(parse_override(each) for each in (*overrides, *more))
    )


def default_scheme(canonical: CanonicalModel) -> str:
    """``source`` for a model with weights in fewer bits than float32, ``f32`` for any other."""
    import onnx

    graph = onnx.load(canonical.path, load_external_data=False)
    return "source" if stored_in_fewer_bits(graph) else "f32"


def apply_plan(
    store: BuildCache,
    canonical: CanonicalModel,
    plan: Plan,
    progress: Progress,
    calibration: Calibration | None = None,
) -> tuple[CanonicalModel, AppliedScheme]:
    """``canonical`` with its weights stored as ``plan`` says, from the cache where it is there.

    The result keeps the digests, which are those of the model before. Its tolerance allows for activations
    that two engines round to different integers, where the plan quantizes activations. Without
    ``calibration`` a plan that calibrates takes a text that comes with Assay, or the model's representative
    inputs. Raises what ``quantize`` does, and UsageError where ``calibration`` is a digest alone and the
    cache has not what came of it.
    """
    import onnx

    if not plan.changes_weights:
        return canonical, AppliedScheme(name=plan.name)
    if plan.name == "f32" and default_scheme(canonical) == "f32":
        return canonical, AppliedScheme(name=plan.name)
    if not plan.needs_samples:
        calibration = None
    parts = [source_digest(f"assay.compile.{each}") for each in ("quantize", "schemes")]
    named = [plan.name] if calibration is None else [plan.name, calibration.digest]
    key = key_of(
        [canonical.digest, named, asdict(canonical.spec.tolerance), parts, installed_versions(_TOOLS)]
    )
    with store.locked("quantized", key) as folder:
        notes = _read_notes(folder)
        if notes is None:
            folder.mkdir(parents=True, exist_ok=True)
            with progress.step(f"quantize to {plan.name}"):
                samples = _samples(canonical.spec, plan, calibration)
                result = quantize(onnx.load(canonical.path), plan, samples)
                digests = save(result.model, folder / _FILE, _DATA_FILE)
            with progress.step("measure what quantizing costs"):
                changed = replace(canonical, path=folder / _FILE)
                notes = _Notes(
                    digests=digests,
                    quantization=quantization_of(
                        result,
                        _errors(canonical, changed),
                        None if calibration is None else calibration.digest,
                    ),
                    absolute_tolerance=_rounding_noise(changed, folder) if plan.rounds_activations else 0.0,
                )
            (folder / _NOTES).write_bytes(msgspec.json.encode(notes))
            stamps.keep_stamps(folder.with_suffix(stamps.SUFFIX), folder)
    tolerance = canonical.spec.tolerance
    if notes.absolute_tolerance:
        tolerance = Tolerance(
            absolute=float(f"{tolerance.absolute + _ENGINES * notes.absolute_tolerance:.3g}"),
            relative=tolerance.relative,
        )
    spec = replace(canonical.spec, tolerance=tolerance)
    applied = AppliedScheme(name=plan.name, quantization=notes.quantization)
    return replace(canonical, spec=spec, path=folder / _FILE), applied


def _read_notes(folder: Path) -> _Notes | None:
    """What an earlier run left, or None where it is not there or not whole."""
    try:
        notes = msgspec.json.decode((folder / _NOTES).read_bytes(), type=_Notes)
        record = folder.with_suffix(stamps.SUFFIX)
        if stamps.unchanged_note(record, folder) is not None:
            return notes
        for name, digest in notes.digests.items():
            with (folder / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    return None
        stamps.keep_stamps(record, folder)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return notes


def _samples(
    spec: ModelSpec, plan: Plan, calibration: Calibration | None
) -> Sequence[Mapping[str, Array]] | None:
    """What ``plan`` calibrates on; None where it does not."""
    if not plan.needs_samples:
        return None
    if calibration is None:
        return representative_samples(spec, Purpose.CALIBRATION)
    if calibration.samples is None:
        raise UsageError(
            f"{spec.name} was quantized by inputs that are not at hand (SHA-256 {calibration.digest[:12]}).",
            hint="Build it again with the folder that --calibration named.",
        )
    return calibration.samples


def quantization_of(
    result: Quantized, errors: Mapping[str, Distortion], calibration: str | None = None
) -> Quantization:
    """What the manifest says of a quantized model; ``errors`` by output, ``calibration`` a digest."""
    stored = sum(tensor.bytes for tensor in result.tensors)
    elements = sum(tensor.elements for tensor in result.tensors)
    return Quantization(
        tensors=len(result.tensors),
        elements=elements,
        tensor_bytes=stored,
        bits_per_weight=round(8 * stored / elements, 4) if elements else 0.0,
        errors=tuple(
            OutputError(
                output=name,
                sqnr=None if error.sqnr is None else round(error.sqnr, 2),
                cosine_similarity=float(f"{error.cosine:.6g}"),
                max_absolute_error=float(f"{error.largest:.3g}"),
            )
            for name, error in errors.items()
        ),
        calibration=calibration,
    )


def _errors(before: CanonicalModel, after: CanonicalModel) -> dict[str, Distortion]:
    samples = representative_samples(before.spec, Purpose.EVALUATION, _ERROR_SAMPLES)
    return output_errors(before.path, after.path, samples)


def output_errors(
    before: Path | bytes, after: Path | bytes, samples: Sequence[Mapping[str, Array]]
) -> dict[str, Distortion]:
    """The error of each floating-point output of ``after`` against ``before``, over all ``samples``.

    Of a decoder's that is the error of its logits: not of the cache, which is on its way to them.
    """
    from assay.compile.verify import reference_outputs

    found: dict[str, Distortion] = {}
    wanted, actual = reference_outputs(before, samples), reference_outputs(after, samples)
    for ours, theirs in zip(actual, wanted, strict=True):
        for name, array in theirs.items():
            if array.dtype.kind == "f" and not name.startswith("present."):
                error = distortion(ours[name], array)
                found[name] = found[name] + error if name in found else error
    return found


def _rounding_noise(quantized: CanonicalModel, folder: Path) -> float:
    """The largest difference that rounding activations makes to an output, over a few samples."""
    import onnx

    from assay.compile.quantize.activations import without_rounding

    exact = without_rounding(onnx.load(quantized.path))
    place = folder / "exact.onnx"
    try:
        save(exact, place, "exact.bin")
        samples = representative_samples(quantized.spec, Purpose.EVALUATION, _ERROR_SAMPLES)
        errors = output_errors(place, quantized.path, samples)
    finally:
        for name in ("exact.onnx", "exact.bin"):
            (folder / name).unlink(missing_ok=True)
    return max((error.largest for error in errors.values()), default=0.0)
