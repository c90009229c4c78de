from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay.errors import InterfaceError
from assay.models.inputs import make_inputs, verification_sizes
from assay.models.registry import find_model, models
from assay.models.spec import DType, InputSpec, ModelSpec, SymbolicDim

TOKENS = find_model("bert-base")


def _plain(*shape: int | SymbolicDim, dtype: DType = DType.FLOAT32) -> ModelSpec:
    return replace(
        TOKENS, inputs=(InputSpec(name="x", dtype=dtype, shape=shape),), representative_inputs=None
    )


# The sizes of a decoder's inputs depend on each other, and are chosen where it is compiled.
PLAIN = [name for name, spec in models().items() if spec.decoder is None]


@pytest.mark.parametrize("name", PLAIN)
def test_inputs_of_the_zoo_fit_its_interfaces(name: str) -> None:
    spec = models()[name]
    for sizes in verification_sizes(spec):
        arrays = make_inputs(spec, sizes)
        assert list(arrays) == [item.name for item in spec.inputs]
        for item in spec.inputs:
            array = arrays[item.name]
            shape = [sizes[dim.name] if isinstance(dim, SymbolicDim) else dim for dim in item.shape]
            assert list(array.shape) == shape
            assert array.dtype.name == item.dtype
            assert array.flags.c_contiguous
            assert np.isfinite(array).all()


@pytest.mark.parametrize("name", PLAIN)
def test_inputs_follow_from_the_seed(name: str) -> None:
    first, again, other = (make_inputs(models()[name], seed=seed) for seed in (0, 0, 1))
    for key, array in first.items():
        np.testing.assert_array_equal(array, again[key])
    assert any((array != other[key]).any() for key, array in first.items())


def test_token_ids_are_words_between_marks_then_padding() -> None:
    arrays = make_inputs(TOKENS, {"batch": 8, "sequence": 40})
    ids, mask, types = (arrays[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    lengths = mask.sum(axis=1)
    assert lengths.min() < 40
    assert lengths.max() == 40
    for row, length in enumerate(lengths):
        assert mask[row, :length].all()
        assert ids[row, 0] == 101
        assert ids[row, length - 1] == 102
        assert (ids[row, length:] == 0).all()
        assert ((ids[row, 1 : length - 1] >= 999) & (ids[row, 1 : length - 1] < 30522)).all()
    assert set(np.unique(types)) == {0, 1}


def test_the_shortest_sequences_are_not_all_padding() -> None:
    for length in (1, 2, 3):
        mask = make_inputs(TOKENS, {"batch": 16, "sequence": length})["attention_mask"]
        assert mask.sum(axis=1).min() >= 1


def test_language_model_ids_are_in_the_vocabulary() -> None:
    ids = make_inputs(find_model("gpt2"), {"batch": 4, "sequence": 1000})["input_ids"]
    assert ids.min() >= 0
    assert 40_000 < ids.max() < 50257


def test_images_are_normalised_and_not_flat() -> None:
    image = make_inputs(find_model("resnet18"))["pixel_values"]
    assert -2.2 < image.min() < -0.5
    assert 0.5 < image.max() < 2.7
    assert image.std(axis=(2, 3)).min() > 0.2


def test_generic_inputs_fit_any_dtype() -> None:
    dim = SymbolicDim(name="n", default=5, maximum=9)
    for dtype in DType:
        array = make_inputs(_plain(2, dim, dtype=dtype))["x"]
        assert array.shape == (2, 5)
        assert array.dtype.name == dtype


@pytest.mark.parametrize("size", [0, 513])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(InterfaceError, match=r"'sequence' of bert-base is 1 to 512, not"):
        make_inputs(TOKENS, {"sequence": size})


def test_unknown_dimensions_are_refused() -> None:
    with pytest.raises(InterfaceError, match=r"no dimension 'length'"):
        make_inputs(TOKENS, {"length": 3})


def test_sizes_to_verify_cover_each_dimension() -> None:
    cases = verification_sizes(TOKENS)
    assert cases[0] == {"batch": 1, "sequence": 128}
    assert {"batch": 1, "sequence": 1} in cases
    assert {"batch": 1, "sequence": 512} in cases
    assert any(case["batch"] > 1 and case["sequence"] % 2 and case["sequence"] > 1 for case in cases)
    assert len({tuple(case.items()) for case in cases}) == len(cases)
    assert all(case["batch"] * case["sequence"] <= 2048 for case in cases)


def test_a_model_of_fixed_shape_has_one_case() -> None:
    assert verification_sizes(find_model("resnet18")) == [{}]
    assert verification_sizes(find_model("resnet18"), few=True) == [{}]


def test_few_sizes_are_small() -> None:
    small = {"batch": 3, "sequence": 19}
    assert verification_sizes(TOKENS, few=True) == [{"batch": 1, "sequence": 1}, small]


@pytest.mark.parametrize(("minimum", "default", "maximum"), [(1, 1, 1), (7, 7, 7), (2, 3, 4), (1, 1, 2)])
def test_cases_stay_in_narrow_ranges(minimum: int, default: int, maximum: int) -> None:
    dim = SymbolicDim(name="n", default=default, minimum=minimum, maximum=maximum)
    cases = verification_sizes(_plain(dim))
    assert all(minimum <= case["n"] <= maximum for case in cases)
    assert {case["n"] for case in cases} >= {minimum, default}
    few = verification_sizes(_plain(dim), few=True)
    assert all(minimum <= case["n"] <= maximum for case in few)
    assert few[0] == {"n": minimum}
