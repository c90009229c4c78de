"""Mixed precision: which weights get more bits, by what each costs the outputs when it alone has fewer."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.compile.quantize.apply import Override, Plan, decoded
from assay.compile.quantize.dequantize import dequantize_model
from assay.compile.quantize.distortion import Distortion, distortion
from assay.compile.quantize.sites import Weight, find_weights
from assay.compile.schemes import Scheme, schemes
from assay.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

    from assay.models.spec import Array

__all__ = ["Budget", "Choice", "choose_schemes", "sensitivities", "spend"]

# The sum of single errors is a model of the error of all: what it misses is made up for in so many rounds.
_ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a mixture must keep to: at most ``bytes`` of weights, or at least ``sqnr`` dB at the outputs."""

    bytes: int | None = None
    sqnr: float | None = None

    def __post_init__(self) -> None:
        if (self.bytes is None) == (self.sqnr is None):
            raise UsageError("A mixture takes one budget: --max-bytes or --min-sqnr.")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to store one weight: its bytes, and the noise at the outputs where nothing else is changed.

    ``noise`` is a sum of squares over all outputs and samples.
    """

    weight: str
    scheme: Scheme
    bytes: int
    noise: float


def sensitivities(
    model: onnx.ModelProto,
    candidates: Sequence[Scheme],
    samples: Sequence[Mapping[str, Array]],
    advance: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, list[Choice]], float]:
    """The choices of each weight, the fewest bytes first, and the signal at the outputs, a sum of squares.

    Float32 is always one of the choices. A choice that costs more bytes than another and is no better is
    left out. ``advance`` is told each weight's name. Raises ModelError where ONNX Runtime refuses the model.
    """
    plain = dequantize_model(model)
    weights = find_weights(plain)
    known = [*candidates, schemes()["f32"]]
    found: dict[str, list[Choice]] = {}
    with _Probe(plain, weights) as probe:
        wanted = [probe.run(sample, {}) for sample in samples]
        signal = sum(float(np.square(array, dtype=np.float64).sum()) for out in wanted for array in out)
        for weight in weights:
            advance(weight.name)
            values = weight.values()
            choices = []
            for scheme in dict.fromkeys(each.for_weight(weight) for each in known):
                if scheme.misfit(weight) is not None:
                    continue
                changed = probe.stored(weight, decoded(scheme.encode(values), values.shape))
                total = [
                    distortion(a, w)
                    for sample, outputs in zip(samples, wanted, strict=True)
                    for a, w in zip(probe.run(sample, changed), outputs, strict=True)
                ]
                noise = 0.0 if scheme.name == "f32" else sum(each.noise for each in total)
                size = scheme.stored_bytes(weight.shape)
                choices.append(Choice(weight=weight.name, scheme=scheme, bytes=size, noise=noise))
            found[weight.name] = _frontier(choices)
    return found, signal


def _frontier(choices: Sequence[Choice]) -> list[Choice]:
    """Those for which no other is as small and as good."""
    best: list[Choice] = []
    for choice in sorted(choices, key=lambda each: (each.bytes, each.noise)):
        if not best or choice.noise < best[-1].noise:
            best.append(choice)
    return best


class _Probe:
    """A session whose weights can be replaced for one run."""

    def __init__(self, model: onnx.ModelProto, weights: Sequence[Weight]) -> None:
        self._model, self._weights = model, weights

    def __enter__(self) -> _Probe:
        import tempfile

        import onnx

        from assay.compile.verify import open_reference
        from assay.models.export.weights import save

        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        # An initializer that is an input too may be given another value, and is not folded into anything.
        tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
        for weight in self._weights:
            for name in (weight.name, *weight.copies):
                tensor = tensors[name]
                value = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
                copy.graph.input.append(value)
        self._folder = tempfile.TemporaryDirectory(prefix="assay-probe-")
        path = Path(self._folder.name) / "probe.onnx"
        save(copy, path, "probe.bin")
        self._session = open_reference(path)
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def stored(self, weight: Weight, values: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Values of a weight's initializers."""
        turned = np.ascontiguousarray(values.T) if weight.is_matrix else values
        own = turned if weight.transposed else values
        return {weight.name: own, **dict.fromkeys(weight.copies, turned)}

    def run(
        self, sample: Mapping[str, Array], changed: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """Floating-point outputs, without a decoder's cache."""
        from assay.compile.verify import run_reference

        outputs = run_reference(self._session, {**sample, **changed})
        return [
            array
            for name, array in outputs.items()
            if array.dtype.kind == "f" and not name.startswith("present.")
        ]


def spend(
    choices: Mapping[str, Sequence[Choice]], *, bytes_left: int | None = None, noise: float | None = None
) -> dict[str, Choice]:
    """One choice for each weight: the smallest, then upgrades by how much noise each byte takes away.

    Upgrades are made while the bytes stay within ``bytes_left``, or until the sum of noise is within
    ``noise``. Raises UsageError where the smallest is larger than the budget.
    """
    chosen = dict.fromkeys(choices, 0)
    size = sum(each[0].bytes for each in choices.values())
    total = sum(each[0].noise for each in choices.values())
    if bytes_left is not None and size > bytes_left:
        raise UsageError(
            f"No mixture fits into {bytes_left} bytes: the smallest has {size}.",
            hint="Allow more bytes, or give a smaller scheme.",
        )
    while noise is None or total > noise:
        steps = []
        for name, place in chosen.items():
            for further in range(place + 1, len(choices[name])):
                now, then = choices[name][place], choices[name][further]
                more, gain = then.bytes - now.bytes, now.noise - then.noise
                if bytes_left is None or size + more <= bytes_left:
                    steps.append((gain / max(more, 1), name, further, more, gain))
        if not steps:
            break
        _, name, further, more, gain = max(steps)
        chosen[name] = further
        size, total = size + more, total - gain
    return {name: choices[name][place] for name, place in chosen.items()}


def choose_schemes(
    plan: Plan,
    choices: Mapping[str, Sequence[Choice]],
    signal: float,
    budget: Budget,
    measure: Callable[[Plan], Distortion],
) -> Plan:
    """``plan`` with an override for each weight that its scheme does not store within ``budget``.

    ``measure`` gives the error at the outputs of a whole plan: an error budget is kept by it, not by the sum
    of single errors alone. Raises UsageError where no mixture keeps the budget.
    """
    if budget.bytes is not None:
        return _with_overrides(plan, spend(choices, bytes_left=budget.bytes))
    assert budget.sqnr is not None
    wanted = signal / 10 ** (budget.sqnr / 10)
    allowed = wanted
    for _ in range(_ROUNDS):
        chosen = spend(choices, noise=allowed)
        mixture = _with_overrides(plan, chosen)
        error = measure(mixture)
        if error.sqnr is None or error.sqnr >= budget.sqnr:
            return mixture
        if all(each.scheme == choices[name][-1].scheme for name, each in chosen.items()):
            break
        # What the sum of single errors did not foresee is taken off the budget.
        allowed *= min(0.7, wanted / error.noise)
    raise UsageError(
        f"No mixture of these schemes reaches {budget.sqnr:g} dB; the last one has {error.sqnr:.1f} dB.",
        hint="Give --candidate a scheme with more bits, or accept a lower --min-sqnr.",
    )


def _with_overrides(plan: Plan, chosen: Mapping[str, Choice]) -> Plan:
    overrides = tuple(
        Override(pattern=glob.escape(name), scheme=choice.scheme) for name, choice in sorted(chosen.items())
    )
    return replace(plan, overrides=(*plan.overrides, *overrides))
