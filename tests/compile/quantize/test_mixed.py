"""Mixtures: budgets kept, and bits spent where they take away most noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.quantize.activations import without_rounding
from assay.compile.quantize.apply import Plan, quantize
from assay.compile.quantize.distortion import Distortion, distortion
from assay.compile.quantize.mixed import Budget, Choice, choose_schemes, sensitivities, spend
from assay.compile.quantize.prepare import find_plan
from assay.compile.schemes import find_scheme
from assay.errors import UsageError


def choice(weight: str, scheme: str, size: int, noise: float) -> Choice:
    return Choice(weight=weight, scheme=find_scheme(scheme), bytes=size, noise=noise)


CHOICES = {
    "a": [choice("a", "int4", 10, 5.0), choice("a", "int8", 20, 1.0), choice("a", "f32", 80, 0.0)],
    "b": [choice("b", "int4", 10, 50.0), choice("b", "int8", 20, 2.0), choice("b", "f32", 80, 0.0)],
}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (20, ("int4", "int4")),
        (29, ("int4", "int4")),
        (30, ("int4", "int8")),
        (40, ("int8", "int8")),
        (100, ("int8", "f32")),
        (160, ("f32", "f32")),
    ],
)
def test_bytes_go_where_each_takes_away_most(budget: int, expected: tuple[str, str]) -> None:
    chosen = spend(CHOICES, bytes_left=budget)
    assert (chosen["a"].scheme.name, chosen["b"].scheme.name) == expected
    assert sum(each.bytes for each in chosen.values()) <= budget


@pytest.mark.parametrize(
    ("noise", "expected"), [(60.0, ("int4", "int4")), (10.0, ("int4", "int8")), (2.5, ("int8", "f32"))]
)
def test_upgrades_end_where_the_noise_is_low_enough(noise: float, expected: tuple[str, str]) -> None:
    chosen = spend(CHOICES, noise=noise)
    found = (chosen["a"].scheme.name, chosen["b"].scheme.name)
    assert found == expected or (noise == 2.5 and sum(each.noise for each in chosen.values()) <= noise)


def test_a_budget_below_the_smallest_is_refused() -> None:
    with pytest.raises(UsageError, match="smallest has 20"):
        spend(CHOICES, bytes_left=19)


@pytest.mark.parametrize("given", [{}, {"bytes": 1, "sqnr": 2.0}])
def test_there_is_one_budget(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="one budget"):
        Budget(**given)


@pytest.fixture(scope="module")
def samples() -> list[dict[str, Any]]:
    generator = np.random.default_rng(11)
    return [{"ids": generator.integers(0, 60, 24)} for _ in range(3)]


def test_noise_is_what_one_weight_alone_costs(language: onnx.ModelProto, samples: Any, run: Any) -> None:
    found, signal = sensitivities(language, [find_scheme("int4"), find_scheme("int8")], samples)
    assert set(found) == {"table", "up", "down"}
    exact = [run(language, **sample)["logits"] for sample in samples]
    assert signal == pytest.approx(sum(float(np.square(each).sum()) for each in exact), rel=1e-5)
    for name in ("up", "table"):
        for each in found[name]:
            plan = find_plan("f32", [f"{name}={each.scheme.name}"])
            alone = without_rounding(quantize(language, plan).model)
            error = sum(
                float(np.square(run(alone, **sample)["logits"] - wanted).sum())
                for sample, wanted in zip(samples, exact, strict=True)
            )
            assert each.noise == pytest.approx(error, rel=1e-2, abs=1e-6)
    assert [each.scheme.name for each in found["up"]] == ["int4", "int8", "f32"]
    assert [each.scheme.name for each in found["table"]] == ["int8", "f32"]


def test_an_error_budget_is_kept_by_the_mixture_itself(
    language: onnx.ModelProto, samples: Any, run: Any
) -> None:
    plan = Plan(scheme=find_scheme("int4"))
    choices, signal = sensitivities(language, [plan.scheme, find_scheme("int8")], samples)

    def measure(mixture: Plan) -> Distortion:
        model = quantize(language, mixture).model
        first, *others = (
            distortion(run(model, **sample)["logits"], run(language, **sample)["logits"])
            for sample in samples
        )
        return sum(others, first)

    plain = measure(plan).sqnr
    assert plain is not None
    mixture = choose_schemes(plan, choices, signal, Budget(sqnr=plain + 3), measure)
    reached = measure(mixture).sqnr
    assert reached is not None
    assert reached >= plain + 3
    sizes = [sum(t.bytes for t in quantize(language, each).tensors) for each in (plan, mixture)]
    assert sizes[0] < sizes[1] < 4 * sum(t.elements for t in quantize(language, plan).tensors)
    only = {name: each[:1] for name, each in choices.items()}
    with pytest.raises(UsageError, match="No mixture"):
        choose_schemes(plan, only, signal, Budget(sqnr=plain + 3), measure)
