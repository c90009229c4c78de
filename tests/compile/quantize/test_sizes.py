"""Bytes that schemes imply, added up by hand."""

from __future__ import annotations

import pytest

from assay.compile.quantize.sizes import LLAMA_2_7B, scheme_sizes
from assay.compile.schemes import find_scheme

# Of Llama-2-7B: parameters of matrices, of its table of embeddings, and of norms.
MATRICES = 2 * 32000 * 4096 + 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
TABLE, NORMS = 32000 * 4096, 65 * 4096


def test_the_shapes_are_those_of_the_model() -> None:
    assert sum(count * rows * columns for count, rows, columns in LLAMA_2_7B) == MATRICES
    assert MATRICES + NORMS == 6_738_415_616


@pytest.mark.parametrize(
    ("scheme", "bits", "table_bits"),
    [
        ("f32", 32, 32),
        ("bf16", 16, 16),
        ("int8", 8.5, 8.5),
        ("int4", 4.625, 8.5),
        ("int4-g128-sym", 4.125, 8.125),
    ],
)
def test_seven_billion_parameters(scheme: str, bits: float, table_bits: float) -> None:
    (size,) = scheme_sizes([find_scheme(scheme)])
    assert size.bytes_per_weight == bits / 8
    assert size.seven_billion == ((MATRICES - TABLE) * bits + TABLE * table_bits) / 8 + 4 * NORMS
