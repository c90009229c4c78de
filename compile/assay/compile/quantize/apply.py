"""Apply a plan (a scheme, and others for chosen tensors) to canonical ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from assay.compile.quantize.activations import hessians, magnitudes
from assay.compile.quantize.channels import ChannelQuantized, quantize_channels, smoothing_factors
from assay.compile.quantize.dequantize import dequantize_model
from assay.compile.quantize.distortion import Distortion, distortion
from assay.compile.quantize.gptq import gptq
from assay.compile.quantize.rewrite import Rewriter
from assay.compile.quantize.sites import Kind, Weight, find_weights
from assay.compile.schemes import Scheme, find_scheme, schemes
from assay.compile.schemes.int8_dynamic import DynamicScheme
from assay.compile.schemes.scheme import GroupScheme, Rounding
from assay.errors import ModelError, UnknownNameError, UsageError
from assay.models.decoders.weights import BlockQuantized, dequantize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from assay.compile.quantize.rewrite import Stored
    from assay.models.spec import Array

__all__ = ["Override", "Plan", "Quantized", "StoredTensor", "decoded", "parse_override", "quantize"]


@dataclass(frozen=True, kw_only=True)
class Override:
    """A scheme for the tensors whose name, or the name of a node that reads them, matches a glob pattern."""

    pattern: str
    scheme: Scheme

    def matches(self, names: Sequence[str]) -> bool:
        """Whether the pattern matches one of ``names``."""
        return any(fnmatchcase(name, self.pattern) for name in names)


def parse_override(text: str) -> Override:
    """An override from ``PATTERN=SCHEME``. Raises UsageError, and UnknownNameError for the scheme."""
    pattern, separator, name = text.rpartition("=")
    if not (pattern and separator and name):
        raise UsageError(f"--override takes PATTERN=SCHEME, such as 'lm_head*=int8', not {text!r}.")
    scheme = find_scheme(name)
    if scheme.name == "source":
        raise UsageError("An override cannot be 'source'.", hint="Name how the tensor is to be stored.")
    return Override(pattern=pattern, scheme=scheme)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do to a model: ``scheme`` for every weight but those of the first override that matches."""

    scheme: Scheme
    overrides: tuple[Override, ...] = ()

    @property
    def name(self) -> str:
        """The plan in one line."""
        return ",".join(
            [self.scheme.name, *(f"{each.pattern}={each.scheme.name}" for each in self.overrides)]
        )

    @property
    def needs_samples(self) -> bool:
        """Whether one of the schemes calibrates."""
        return any(each.needs_samples for each in (self.scheme, *(o.scheme for o in self.overrides)))

    @property
    def rounds_activations(self) -> bool:
        """Whether one of the schemes quantizes activations."""
        return any(each.rounds_activations for each in (self.scheme, *(o.scheme for o in self.overrides)))

    @property
    def changes_weights(self) -> bool:
        """Whether anything is done."""
        return self.scheme.changes_weights or bool(self.overrides)


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One weight after quantization. ``bytes`` include scales; ``error`` is against float32.

    ``note`` says why a weight is not stored as the plan's scheme would.
    """

    name: str
    operators: tuple[str, ...]
    shape: tuple[int, ...]
    scheme: str
    elements: int
    bytes: int
    error: Distortion
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A quantized model and its weights in the order in which they are read."""

    model: onnx.ModelProto
    tensors: tuple[StoredTensor, ...]


def quantize(
    model: onnx.ModelProto, plan: Plan, samples: Sequence[Mapping[str, Array]] | None = None
) -> Quantized:
    """``model``, which stays as it is, with its weights stored as ``plan`` says.

    ``samples``: inputs to calibrate on, for schemes that need them. Raises UnknownNameError for an override
    that matches nothing, UsageError for one that does not fit a tensor it matches, or for missing samples,
    ModelError for weights that cannot be stored.
    """
    if plan.needs_samples and not samples:
        raise UsageError(f"The scheme {plan.name} needs inputs to calibrate on.", hint="Give --calibration.")
    changed = dequantize_model(model)
    weights = find_weights(changed)
    if plan.scheme.whole_graph:
        assert samples is not None
        return _quantize_graph(changed, weights, plan, samples)
    chosen = _choose(changed, weights, plan)
    rounded = _rounded(changed, chosen, samples)
    rewriter = Rewriter(changed)
    tensors = []
    for weight, scheme, note in chosen:
        values = weight.values()
        stored = rounded[weight.name] if weight.name in rounded else _encoded(weight, scheme, values)
        rewriter.store(weight, stored)
        tensors.append(_described(changed, weight, scheme, note, values, stored))
    rewriter.finish()
    return Quantized(model=changed, tensors=tuple(tensors))


def _quantize_graph(
    model: onnx.ModelProto, weights: Sequence[Weight], plan: Plan, samples: Sequence[Mapping[str, Array]]
) -> Quantized:
    """``model`` with activations quantized too; overrides may only keep weights in float32."""
    from assay.compile.quantize.static import quantize_static_model, static_values
    from assay.compile.schemes.int8_static import StaticScheme

    assert isinstance(plan.scheme, StaticScheme)
    for override in plan.overrides:
        if override.scheme.name != "f32":
            raise UsageError(f"With {plan.scheme.name}, an override can only be f32.")
    kept = _kept_names(model, weights, plan)
    nodes = {
        model.graph.node[reader.node].name
        for weight in weights
        if weight.name in kept
        for reader in weight.readers
    }
    for weight in weights:
        weight.values()  # numbers that are not finite are told before calibration runs
    result = quantize_static_model(model, samples, plan.scheme.calibrator, nodes - {""})
    values = static_values(weights, result)
    tensors = []
    for weight in weights:
        before = weight.values()
        stored = values.get(weight.name, before)
        scheme = plan.scheme if weight.name in values else schemes()["f32"]
        note = None if scheme is plan.scheme else "override" if weight.name in kept else "left in float32"
        tensors.append(_described(model, weight, scheme, note, before, stored))
    return Quantized(model=result, tensors=tuple(tensors))


def _kept_names(model: onnx.ModelProto, weights: Sequence[Weight], plan: Plan) -> set[str]:
    """Names of the weights that overrides match; raises UnknownNameError for one that matches none."""
    names = {weight.name: _names(model, weight) for weight in weights}
    for override in plan.overrides:
        if not any(override.matches(known) for known in names.values()):
            known = (name for several in names.values() for name in several)
            raise UnknownNameError("weight that matches the override", override.pattern, dict.fromkeys(known))
    return {
        name for name, known in names.items() if any(override.matches(known) for override in plan.overrides)
    }


def _choose(
    model: onnx.ModelProto, weights: Sequence[Weight], plan: Plan
) -> list[tuple[Weight, Scheme, str | None]]:
    """The scheme of each weight, and why it is not the plan's where it is not."""
    unused = {each.pattern for each in plan.overrides}
    known = [name for weight in weights for name in _names(model, weight)]
    chosen: list[tuple[Weight, Scheme, str | None]] = []
    for weight in weights:
        names = _names(model, weight)
        override = next((each for each in plan.overrides if each.matches(names)), None)
        unused -= {each.pattern for each in plan.overrides if each.matches(names)}
        if override is not None:
            reason = override.scheme.misfit(weight)
            if reason is not None:
                raise UsageError(
                    f"The weight {weight.name!r} cannot be stored as {override.scheme.name}: {reason}."
                )
            chosen.append((weight, override.scheme, "override"))
            continue
        scheme = plan.scheme.for_weight(weight)
        reason = scheme.misfit(weight)
        if reason is None and scheme.name == "f32":
            reason = plan.scheme.misfit(weight)
        if reason is not None:
            chosen.append((weight, schemes()["f32"], reason))
        else:
            table = "a table" if Kind.TABLE in weight.kinds else None
            chosen.append((weight, scheme, table if scheme.name != plan.scheme.name else None))
    for pattern in sorted(unused):
        raise UnknownNameError("weight that matches the override", pattern, dict.fromkeys(known))
    return chosen


def _names(model: onnx.ModelProto, weight: Weight) -> list[str]:
    """What an override may call a weight: its tensor, its copies, and the nodes that read it."""
    nodes = [model.graph.node[reader.node] for reader in weight.readers]
    return [weight.name, *weight.copies, *(node.name for node in nodes if node.name)]


def _rounded(
    model: onnx.ModelProto,
    chosen: Sequence[tuple[Weight, Scheme, str | None]],
    samples: Sequence[Mapping[str, Array]] | None,
) -> dict[str, BlockQuantized | ChannelQuantized]:
    """Weights by name whose rounding looks at activations."""
    return {**_by_gptq(model, chosen, samples), **_smoothed(model, chosen, samples)}


def _inputs(model: onnx.ModelProto, weight: Weight) -> list[str]:
    """What products multiply by a weight."""
    return [model.graph.node[r.node].input[0] for r in weight.readers if r.kind is Kind.PRODUCT]


def _smoothed(
    model: onnx.ModelProto,
    chosen: Sequence[tuple[Weight, Scheme, str | None]],
    samples: Sequence[Mapping[str, Array]] | None,
) -> dict[str, ChannelQuantized]:
    """Weights whose columns are scaled by how large activations are there: alike where they share them."""
    wanted = [weight for weight, scheme, _ in chosen if isinstance(scheme, DynamicScheme) and scheme.smooth]
    if not wanted:
        return {}
    assert samples is not None
    groups: dict[str, list[Weight]] = {}
    for weight in wanted:
        # A weight that several activations meet can serve but one of them.
        names = _inputs(model, weight)
        if len(names) == 1:
            groups.setdefault(names[0], []).append(weight)
    largest = magnitudes(model, sorted(groups), samples)
    found = {}
    for name, weights in groups.items():
        values = [weight.values() for weight in weights]
        factors = smoothing_factors(largest[name], values)
        for weight, each in zip(weights, values, strict=True):
            found[weight.name] = quantize_channels(each, factors)
    return found


def _by_gptq(
    model: onnx.ModelProto,
    chosen: Sequence[tuple[Weight, Scheme, str | None]],
    samples: Sequence[Mapping[str, Array]] | None,
) -> dict[str, BlockQuantized]:
    wanted = [
        (weight, scheme)
        for weight, scheme, _ in chosen
        if isinstance(scheme, GroupScheme) and scheme.rounding is Rounding.GPTQ
    ]
    inputs = {weight.name: _inputs(model, weight) for weight, _ in wanted}
    wanted = [(weight, scheme) for weight, scheme in wanted if inputs[weight.name]]
    if not wanted:
        return {}
    assert samples is not None
    sums = hessians(model, sorted({name for names in inputs.values() for name in names}), samples)
    rounded = {}
    for weight, scheme in wanted:
        assert isinstance(scheme, GroupScheme)
        rounded[weight.name] = gptq(
            weight.values(),
            sum((sums[name] for name in inputs[weight.name][1:]), sums[inputs[weight.name][0]]),
            bits=scheme.bits,
            group=scheme.group,
            symmetric=scheme.symmetric,
        )
    return rounded


def _encoded(weight: Weight, scheme: Scheme, values: npt.NDArray[np.float32]) -> Stored:
    try:
        return scheme.encode(values)
    except ModelError as error:
        raise ModelError(f"The weight {weight.name!r} cannot be {scheme.name}: {error.message}") from None


def decoded(stored: Stored, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """What stored numbers stand for, as float32 of the shape of the weight."""
    if isinstance(stored, BlockQuantized):
        return dequantize(stored)[:, : shape[1]]
    if isinstance(stored, ChannelQuantized):
        return stored.dequantized()
    return stored.astype("float32")


def _described(
    model: onnx.ModelProto,
    weight: Weight,
    scheme: Scheme,
    note: str | None,
    values: npt.NDArray[np.float32],
    stored: Stored,
) -> StoredTensor:
    operators = [model.graph.node[reader.node].op_type for reader in weight.readers]
    return StoredTensor(
        name=weight.name,
        operators=tuple(dict.fromkeys(operators)),
        shape=weight.shape,
        scheme=scheme.name,
        elements=weight.elements,
        bytes=scheme.stored_bytes(weight.shape),
        error=distortion(decoded(stored, values.shape), values),
        note=note,
    )
