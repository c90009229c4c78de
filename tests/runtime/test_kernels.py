from __future__ import annotations

import json

import pytest

from assay.errors import ArtifactError, ArtifactVersionError
from assay.runtime.kernels import (
    Kernel,
    Parameter,
    decode_kernels,
    encode_kernels,
    evaluate,
    kernels_file,
    work_of,
)

MATMUL = Kernel(
    parameters=(
        Parameter(name="a", dtype="float32", shape=("rows", 8), touched="rows*32"),
        Parameter(name="b", dtype="float32", shape=(8, 4), touched=128),
        Parameter(name="n", dtype="int64", shape=None),
        Parameter(name="out", dtype="float32", shape=("rows", 4), touched="min(rows, n)*16"),
    ),
    operations={"float": "2*rows*8*4"},
    scheduled=True,
)


def test_the_file_lies_beside_its_library():
    assert kernels_file("lib/x86-64-v3/model.so") == "lib/x86-64-v3/model.kernels.json"


def test_descriptions_come_back():
    kernels = {"b": MATMUL, "a": MATMUL}
    data = encode_kernels(kernels)
    assert decode_kernels(data) == kernels
    assert encode_kernels(decode_kernels(data)) == data
    assert encode_kernels(dict(reversed(kernels.items()))) == data


def test_the_work_of_a_call_follows_its_arguments():
    work = work_of(MATMUL, ((5, 8), (8, 4), 3, (5, 4)))
    assert work.operations == {"float": 2 * 5 * 8 * 4}
    assert work.touched == (5 * 32, 128, 0, 3 * 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((5, 8), (8, 4), (5, 4)), "4 parameters, and is called with 3"),
        (((5,), (8, 4), 3, (5, 4)), "other dimensions"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ArtifactError, match=message):
        work_of(MATMUL, arguments)


@pytest.mark.parametrize(
    ("size", "expected"), [(7, 7), ("n", 5), ("(n + 3)//2 - n%2", 3), ("max(n, 9)*2", 18), ("n - -1", 6)]
)
def test_sizes_are_evaluated(size, expected):
    assert evaluate(size, {"n": 5}) == expected


@pytest.mark.parametrize(
    "size", ["m", "n**9", "n.bit_length()", "__import__('os')", "n +", "n//0", "0 - n", "[n][0]", "min(n)"]
)
def test_what_is_no_size_is_damage(size):
    with pytest.raises(ArtifactError, match="damaged"):
        evaluate(size, {"n": 5})


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"schema_version": 1, "kernels": {"a": {}}}'])
def test_damage(data):
    with pytest.raises(ArtifactError, match="damaged"):
        decode_kernels(data)


def test_a_newer_schema():
    newer = {**json.loads(encode_kernels({})), "schema_version": 99}
    with pytest.raises(ArtifactVersionError, match="schema 99"):
        decode_kernels(json.dumps(newer).encode())
