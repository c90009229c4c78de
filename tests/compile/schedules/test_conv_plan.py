from __future__ import annotations

from typing import Any

import pytest

from assay.compile.targets import targets
from assay.compile.tvm_import import import_tvm

import_tvm()

from assay.compile.schedules.conv_plan import (  # noqa: E402
    ConvAlgorithm,
    ConvPlan,
    ConvShape,
    choose_plan,
    integer_plan,
    winograd_plan,
)
from assay.compile.schedules.multiply_add import QuadsOf8Saturating  # noqa: E402

AVX2 = targets()["x86-64-v3"].vector_unit


def shape(size: int, inputs: int, outputs: int, **changes: Any) -> ConvShape:
    options: dict[str, Any] = {"batch": 1, "kernel": (3, 3), "unit_steps": True, "groups": 1, **changes}
    return ConvShape(height=size, width=size, inputs=inputs, outputs=outputs, **options)


def chosen(size: int, inputs: int, outputs: int, **changes: Any) -> ConvAlgorithm:
    return choose_plan(AVX2, shape(size, inputs, outputs, **changes)).algorithm


def test_large_images_take_large_tiles() -> None:
    assert chosen(56, 64, 64) == ConvAlgorithm.WINOGRAD4
    assert chosen(28, 512, 512) == ConvAlgorithm.WINOGRAD4


def test_large_filters_on_few_tiles_stay_smaller() -> None:
    assert chosen(14, 512, 512) == ConvAlgorithm.WINOGRAD2
    assert chosen(7, 512, 512) == ConvAlgorithm.WINOGRAD2


@pytest.mark.parametrize(
    "changes", [{"kernel": (1, 1)}, {"kernel": (5, 5)}, {"unit_steps": False}, {"groups": 2}], ids=str
)
def test_other_convolutions_are_direct(changes: dict[str, Any]) -> None:
    assert chosen(56, 64, 64, **changes) == ConvAlgorithm.DIRECT


def test_few_input_channels_are_direct() -> None:
    assert chosen(224, 3, 64) == ConvAlgorithm.DIRECT


def integers(size: int, channels: int, unit: Any = AVX2, **changes: Any) -> bool:
    """Whether a convolution of integers is computed by minimal filtering."""
    return integer_plan(unit, shape(size, channels, channels, **changes), QuadsOf8Saturating()) is not None


def test_integers_are_filtered_where_that_saves_more_than_it_moves() -> None:
    assert integers(56, 64)
    assert integers(14, 256)
    assert not integers(7, 512)
    assert not integers(56, 4)


def test_other_integers_are_direct() -> None:
    assert not integers(56, 64, unit_steps=False)
    assert not integers(56, 64, groups=2)
    assert not integers(56, 64, targets()["x86-64-v4-vnni"].vector_unit)


@pytest.mark.parametrize("algorithm", [ConvAlgorithm.WINOGRAD2, ConvAlgorithm.WINOGRAD4])
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(("size", "channels"), [(224, 64), (28, 130), (7, 512), (1, 17)])
def test_blocks_cover_all_tiles_and_panels(
    target: str, algorithm: ConvAlgorithm, size: int, channels: int
) -> None:
    unit = targets()[target].vector_unit
    plan: ConvPlan = winograd_plan(unit, shape(size, channels, channels), algorithm)
    across = -(-size // algorithm.outputs)
    assert 1 <= plan.tiles <= across * across
    assert plan.panel_width % unit.lanes() == 0
    assert -(-channels // plan.panel_width) % plan.panels == 0
