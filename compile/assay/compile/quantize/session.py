"""One `assay quantize`: quantize a model, write it, and measure what that costs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.compile.cache import BuildCache
from assay.compile.quantize.apply import Plan, Quantized, StoredTensor, quantize
from assay.compile.quantize.distortion import Distortion
from assay.compile.quantize.mixed import Budget, choose_schemes, sensitivities
from assay.compile.quantize.prepare import output_errors
from assay.compile.quantize.samples import Purpose, read_samples, representative_samples
from assay.compile.quantize.tasks import Effect, measure_effects
from assay.compile.schemes import Scheme
from assay.models.export.weights import save

if TYPE_CHECKING:
    import onnx

    from assay.models.export import CanonicalModel
    from assay.models.spec import Array, ModelSpec
    from assay.progress import Progress

__all__ = ["QuantizationReport", "quantize_spec"]

# Of a decoder every sample is hundreds of tokens.
_DECODER_SAMPLES, _SENSITIVITY_SAMPLES = 4, 4


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """What was done to a model, and what it costs: per weight, at the outputs, and for the task.

    ``path`` is the ONNX file, where one was asked for.
    """

    spec: ModelSpec
    plan: Plan
    tensors: tuple[StoredTensor, ...]
    errors: Mapping[str, Distortion]
    effects: tuple[Effect, ...]
    path: Path | None

    @property
    def elements(self) -> int:
        """Numbers in all weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bytes(self) -> int:
        """Bytes of all weights as stored."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def error(self) -> Distortion | None:
        """Of all weights together; None where there are none."""
        if not self.tensors:
            return None
        first, *others = (tensor.error for tensor in self.tensors)
        return sum(others, first)


def quantize_spec(
    spec: ModelSpec,
    plan: Plan,
    *,
    calibration: Path | None = None,
    output: Path | None = None,
    candidates: Sequence[Scheme] = (),
    budget: Budget | None = None,
    cache: Path | None = None,
    progress: Progress,
) -> QuantizationReport:
    """Quantize ``spec`` as ``plan`` says and measure the effect.

    ``calibration``: a folder of recorded inputs in place of text or representative inputs. With ``budget``,
    ``candidates`` are chosen for single weights by their sensitivity. ``output``: where the ONNX goes, with
    its weights in a file of the same name and ``.bin`` beside it where they are over 64 MiB.
    Raises what ``quantize`` does, WorkloadError for ``calibration``, StorageError for ``output``.
    """
    import onnx

    canonical = BuildCache(cache).canonical(spec, progress)
    samples: Sequence[Mapping[str, Array]] | None = None
    if calibration is not None:
        samples = read_samples(calibration, canonical.spec)
    model = onnx.load(canonical.path)
    if samples is None and (plan.needs_samples or budget is not None):
        samples = representative_samples(canonical.spec, Purpose.CALIBRATION)
    if budget is not None:
        assert samples is not None
        plan = _mixture(canonical, model, plan, candidates, budget, samples, progress)
    with progress.step(f"quantize to {plan.scheme.name}"):
        result = quantize(model, plan, samples)
    count = _DECODER_SAMPLES if canonical.spec.decoder is not None else None
    with tempfile.TemporaryDirectory(prefix="assay-quantize-") as folder:
        path = Path(folder) / "quantized.onnx"
        save(result.model, path, "quantized.bin")
        with progress.step("measure what quantizing costs"):
            held_out = representative_samples(canonical.spec, Purpose.EVALUATION, count)
            errors, effects = measure_effects(canonical.spec, canonical.path, path, held_out)
    if output is not None:
        _write(result, output)
    return QuantizationReport(
        spec=canonical.spec,
        plan=plan,
        tensors=result.tensors,
        errors=errors,
        effects=tuple(effects),
        path=output,
    )


def _mixture(
    canonical: CanonicalModel,
    model: onnx.ModelProto,
    plan: Plan,
    candidates: Sequence[Scheme],
    budget: Budget,
    samples: Sequence[Mapping[str, Array]],
    progress: Progress,
) -> Plan:
    """The plan with a scheme for each weight, within the budget."""
    few = samples[:_SENSITIVITY_SAMPLES]
    with progress.step("measure the sensitivity of each weight"):
        choices, signal = sensitivities(model, [plan.scheme, *candidates], few)

    def measure(mixture: Plan) -> Distortion:
        with tempfile.TemporaryDirectory(prefix="assay-mixture-") as folder:
            path = Path(folder) / "mixture.onnx"
            save(quantize(model, mixture, samples).model, path, "mixture.bin")
            first, *others = output_errors(canonical.path, path, few).values()
            return sum(others, first)

    with progress.step("choose a scheme for each weight"):
        return choose_schemes(plan, choices, signal, budget, measure)


def _write(result: Quantized, output: Path) -> None:
    """The model at ``output``, its data first, so that a file that is there is whole."""
    from assay.runtime.atomic import storage_errors

    with storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".quantize-") as folder:
            names = save(result.model, Path(folder) / output.name, f"{output.stem}.bin")
            for name in sorted(names, key=lambda name: name == output.name):
                (Path(folder) / name).replace(output.parent / name)
