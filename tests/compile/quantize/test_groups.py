"""Codes and scales of groups against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.quantize.groups import GROUP_SIZES, groups_of, quantize_groups
from assay.compile.quantize.rewrite import pack_codes
from assay.errors import ModelError
from assay.models.decoders.weights import dequantize


def reference(row: Any, bits: int, symmetric: bool) -> tuple[list[int], float, int]:
    """One group by the definition: codes, scale and zero point."""
    top = 2**bits - 1
    if symmetric:
        extreme = max((float(x) for x in row), key=abs)
        if max(row) == -min(row):
            extreme = max(row)
        scale = float(np.float16(np.float32(extreme) / np.float32(-(2 ** (bits - 1)))))
        zero = 2 ** (bits - 1)
    else:
        low, high = np.float32(min(0, *row)), np.float32(max(0, *row))
        scale = float(np.float16((high - low) / np.float32(top)))
        zero = int(min(max(np.rint(-low / np.float32(scale)), 0), top)) if scale else 0
    if scale == 0:
        return [zero] * len(row), 0.0, zero
    codes = [int(min(max(np.rint(np.float32(x) / np.float32(scale)) + zero, 0), top)) for x in row]
    return codes, scale, zero


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("columns", "group"), [(64, 16), (96, 32), (100, 64), (7, 16), (129, 128)])
def test_every_group_is_rounded_as_defined(bits: int, symmetric: bool, columns: int, group: int) -> None:
    values = np.random.default_rng(columns).standard_normal((3, columns)).astype(np.float32)
    values[1, : min(group, columns)] = 0
    values[2] = np.abs(values[2])
    found = quantize_groups(values, bits=bits, group=group, symmetric=symmetric)
    count = groups_of(columns, group)
    assert found.codes.shape == (3, count * group)
    assert (found.zero_points is None) == symmetric
    padded = np.zeros((3, count * group), np.float32)
    padded[:, :columns] = values
    for row in range(3):
        for index in range(count):
            part = slice(index * group, (index + 1) * group)
            codes, scale, zero = reference(padded[row, part].tolist(), bits, symmetric)
            assert found.codes[row, part].tolist() == codes
            assert found.scales[row, index] == np.float32(scale)
            if found.zero_points is not None:
                assert found.zero_points[row, index] == zero


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", GROUP_SIZES)
def test_no_weight_is_further_off_than_half_a_step_but_at_the_clipped_end(
    bits: int, symmetric: bool, group: int
) -> None:
    values = np.random.default_rng(group).standard_normal((16, 2 * group)).astype(np.float32)
    found = quantize_groups(values, bits=bits, group=group, symmetric=symmetric)
    steps = np.repeat(np.abs(found.scales), group, axis=1)
    error = np.abs(dequantize(found) - values)
    # The side opposite to the extreme has one code fewer, and float16 moves the ends of the grid a little.
    allowed = 1.0 if symmetric else 0.5
    assert np.all(error <= allowed * steps * 1.001 + 2.0**bits * steps * 2**-11)


def test_what_the_grid_holds_comes_back_exactly() -> None:
    codes = np.random.default_rng(0).integers(-8, 8, (4, 64)).astype(np.float32)
    codes[:, ::32] = -8
    values = codes * np.float32(0.125)
    found = quantize_groups(values, bits=4, group=32, symmetric=True)
    np.testing.assert_array_equal(dequantize(found), values)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_search_for_a_scale_never_costs_and_helps_outliers(symmetric: bool) -> None:
    values = np.random.default_rng(3).standard_t(3, (64, 256)).astype(np.float32)
    options: dict[str, Any] = {"bits": 4, "group": 64, "symmetric": symmetric}
    plain = np.square(dequantize(quantize_groups(values, **options)) - values).reshape(64, 4, 64).sum(-1)
    found = dequantize(quantize_groups(values, **options, search=True))
    searched = np.square(found - values).reshape(64, 4, 64).sum(-1)
    assert np.all(searched <= plain * (1 + 1e-5))
    assert searched.sum() < 0.97 * plain.sum()


def test_importance_moves_the_error_to_what_matters_less() -> None:
    generator = np.random.default_rng(4)
    values = generator.standard_normal((32, 64)).astype(np.float32)
    importance = np.where(np.arange(64) % 8 == 0, 100, 1).astype(np.float32)
    plain = quantize_groups(values, bits=4, group=64, symmetric=True, search=True)
    found = quantize_groups(values, bits=4, group=64, symmetric=True, search=True, importance=importance)

    def cost(result: Any) -> float:
        return float((np.square(dequantize(result) - values) * importance).sum())

    assert cost(found) < cost(plain)


def test_weights_beyond_float16_scales_are_refused() -> None:
    values = np.full((1, 32), 1e30, np.float32)
    with pytest.raises(ModelError, match="too large"):
        quantize_groups(values, bits=4, group=32, symmetric=True)


def test_tiny_weights_become_zero_and_not_nan() -> None:
    found = quantize_groups(np.full((1, 32), 1e-30, np.float32), bits=4, group=32, symmetric=True)
    np.testing.assert_array_equal(dequantize(found), np.zeros((1, 32), np.float32))


def test_codes_are_packed_low_half_first() -> None:
    codes = np.array([[1, 2, 3], [15, 0, 9]], np.uint8)
    np.testing.assert_array_equal(pack_codes(codes, 4), [[0x21, 0x03], [0x0F, 0x09]])
    np.testing.assert_array_equal(pack_codes(codes, 8), codes)
