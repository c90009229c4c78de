"""Names of schemes, and the bytes that they imply."""

from __future__ import annotations

import pytest

from assay.compile.schemes import find_scheme, schemes
from assay.errors import UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("int4", "int4"),
        ("int4-g32-asym", "int4"),
        ("int4-sym-g32-nearest", "int4-sym"),
        ("int4:g64:sym", "int4-g64-sym"),
        ("int4-sym-g64", "int4-g64-sym"),
        ("int8-g128-mse", "int8-g128-mse"),
        ("f16", "f16"),
    ],
)
def test_a_name_has_options_in_one_order(text: str, name: str) -> None:
    scheme = find_scheme(text)
    assert scheme.name == name
    assert find_scheme(scheme.name) == scheme


def test_a_registered_name_is_the_registered_scheme() -> None:
    assert all(find_scheme(name) == scheme for name, scheme in schemes().items())


@pytest.mark.parametrize(
    ("text", "meant"),
    [("int5", "int4"), ("bf61", "bf16"), ("int4-asim", "asym"), ("", "f32")],
)
def test_an_unknown_name_or_option_suggests_the_nearest(text: str, meant: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        find_scheme(text)
    assert meant in (raised.value.hint or "")


@pytest.mark.parametrize("text", ["f16-g32", "source-sym"])
def test_options_where_there_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="takes no options"):
        find_scheme(text)


@pytest.mark.parametrize("text", ["int4-g48", "int8-g0", "int4-g4096"])
def test_a_group_size_that_does_not_fit_names_those_that_do(text: str) -> None:
    with pytest.raises(UsageError, match="does not fit") as raised:
        find_scheme(text)
    assert raised.value.hint == "Known: g16, g32, g64, g128."


def test_two_values_of_one_option_are_refused() -> None:
    with pytest.raises(UsageError, match="two values"):
        find_scheme("int4-g32-g64")


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("f32", 32),
        ("f16", 16),
        ("bf16", 16),
        ("int8", 8 + 16 / 32),
        ("int4", 4 + (16 + 4) / 32),
        ("int4-g128-sym", 4 + 16 / 128),
        ("int4-g64", 4 + (16 + 4) / 64),
        ("int8-g16-asym", 8 + (16 + 8) / 16),
    ],
)
def test_bytes_are_codes_scales_and_zero_points(text: str, bits: float) -> None:
    assert find_scheme(text).stored_bytes((256, 1024)) == 256 * 1024 * bits / 8


def test_the_last_group_of_a_row_is_stored_whole() -> None:
    # 100 weights: four groups of 16 bytes and a scale each, and two bytes for four zero points.
    assert find_scheme("int4").stored_bytes((3, 100)) == 3 * (4 * (16 + 2) + 2)
