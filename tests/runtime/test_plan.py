"""Launch plans: what is read back, what is refused, what sizes become."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from assay.errors import ArtifactError, ArtifactVersionError, InterfaceError
from assay.runtime.bound_plan import bind
from assay.runtime.plan import (
    Flavour,
    Kernel,
    Parameter,
    Place,
    Plan,
    Scalar,
    Step,
    Storage,
    Symbol,
    Tensor,
    decode_plan,
    encode_plan,
    evaluate,
)


def doubling(**changes: Any) -> Plan:
    """y = 2 * x, twice, for x of [n, 4], by kernels of a device."""
    plan = Plan(
        schema_version=1,
        flavour=Flavour.DEVICE,
        symbols=(Symbol(name="n", input=0, axis=0),),
        storages=(
            Storage(bytes=("*", "n", 16)),
            Storage(bytes=("*", "n", 16), output=True),
        ),
        tensors=(
            Tensor(place=Place.INPUT, index=0, dtype="float32", shape=("n", 4)),
            Tensor(place=Place.STORAGE, index=0, dtype="float32", shape=("n", 4)),
            Tensor(place=Place.STORAGE, index=1, dtype="float32", shape=(("*", "n", 4),)),
        ),
        inputs=(0,),
        weights=(),
        outputs=(2,),
        kernels=(
            Kernel(
                name="double",
                file="lib/model.cl",
                parameters=(
                    Parameter(dtype="float32"),
                    Parameter(dtype="float32", written=True),
                    Parameter(dtype="int32", buffer=False),
                ),
                threads=(64, 1, 1),
            ),
        ),
        steps=(
            Step(kernel=0, arguments=(0, 1, Scalar("int32", "n")), grid=(("//", ("+", "n", 15), 16), 1, 1)),
            Step(kernel=0, arguments=(1, 2, Scalar("int32", "n")), grid=(("//", ("+", "n", 15), 16), 1, 1)),
        ),
    )
    return msgspec.structs.replace(plan, **changes)


def as_data(plan: Plan) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(encode_plan(plan))
    return data


def test_a_plan_comes_back_as_it_was() -> None:
    data = encode_plan(doubling())
    assert encode_plan(decode_plan(data)) == data
    assert decode_plan(data).kernels == doubling().kernels


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (7, 7),
        ("n", 5),
        (("+", "n", 1), 6),
        (("-", 1, "n"), -4),
        (("*", "n", ("+", "n", 1)), 30),
        (("//", "n", 2), 2),
        (("//", ("-", 0, "n"), 2), -3),
        (("%", ("-", 0, "n"), 3), 1),
        (("min", "n", 3), 3),
        (("max", "n", 3), 5),
        (("<", "n", 5), 0),
        (("<=", "n", 5), 1),
        (("==", "n", 5), 1),
        (("!=", "n", 5), 0),
        (("select", ("<", "n", 9), 1, ("//", 1, 0)), 1),
    ],
)
def test_expressions(expression: Any, expected: int) -> None:
    assert evaluate(expression, {"n": 5}) == expected


@pytest.mark.parametrize("expression", [("//", "n", 0), ("%", "n", 0), ("*", 2**40, 2**40)])
def test_expressions_without_a_value(expression: Any) -> None:
    with pytest.raises(ArtifactError):
        evaluate(expression, {"n": 5})


def test_binding_gives_numbers() -> None:
    bound = bind(decode_plan(encode_plan(doubling())), [(17, 4)])
    assert bound.storages == (272, 272)
    assert bound.tensors[2].shape == (68,)
    assert bound.tensors[2].nbytes == 272
    assert [step.grid for step in bound.steps] == [(2, 1, 1), (2, 1, 1)]
    assert bound.steps[0].arguments == (0, 1, ("int32", 17))


@pytest.mark.parametrize("shapes", [[], [(2,)], [(2, 5)], [(2, 4), (2, 4)], [()]])
def test_shapes_that_do_not_fit(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(InterfaceError):
        bind(doubling(), shapes)


@pytest.mark.parametrize(
    "storages",
    [
        (Storage(bytes=64), Storage(bytes=("*", "n", 16), output=True)),
        (Storage(bytes=("*", "n", 16)), Storage(bytes=("-", ("*", "n", 16), 1), output=True)),
    ],
)
def test_tensors_beyond_their_memory(storages: tuple[Storage, ...]) -> None:
    with pytest.raises(ArtifactError, match="reaches beyond storage"):
        bind(doubling(storages=storages), [(17, 4)])


def test_negative_sizes() -> None:
    tensors = list(doubling().tensors)
    tensors[1] = msgspec.structs.replace(tensors[1], shape=(("-", "n", 20),))
    with pytest.raises(ArtifactError, match="negative size"):
        bind(doubling(tensors=tuple(tensors)), [(17, 4)])
    grid = (("-", "n", 20), 1, 1)
    steps = tuple(msgspec.structs.replace(step, grid=grid) for step in doubling().steps)
    with pytest.raises(ArtifactError, match="negative grid"):
        bind(doubling(steps=steps), [(17, 4)])


def nested(depth: int) -> Any:
    return "n" if depth == 0 else ["+", nested(depth - 1), 1]


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("symbols", 0, "input"), 1, "input that is not there"),
        (("symbols", 0, "axis"), 2, "dimension that is not there"),
        (("symbols", 0, "name"), "n n", "damaged"),
        (("storages", 0, "bytes"), "m", "no symbol 'm'"),
        (("storages", 0, "bytes"), ["**", "n", 2], "no expression"),
        (("storages", 0, "bytes"), ["+", "n"], "no expression"),
        (("storages", 0, "bytes"), [["+"], "n", 2], "no expression"),
        (("storages", 0, "bytes"), ["+", 1.5, 2], "no expression"),
        (("storages", 0, "bytes"), ["+", True, 2], "no expression"),
        (("storages", 0, "bytes"), [], "no expression"),
        (("storages", 0, "bytes"), nested(200), "nested too deeply"),
        (("storages", 0, "bytes"), 2**63 - 1, "beyond 64 bits"),
        (("tensors", 1, "index"), 2, "lies in storage 2"),
        (("tensors", 1, "index"), -1, "damaged"),
        (("tensors", 1, "dtype"), "complex64", "damaged"),
        (("tensors", 0, "offset"), 4, "not the whole of input"),
        (("tensors", 0, "more"), 4, "unknown field"),
        (("inputs", 0), 1, "not the whole of input"),
        (("inputs", 0), 9, "not there"),
        (("outputs", 0), 3, "tensor 3 is not there"),
        (("written_inputs",), [1], "input 1 is not there"),
        (("kernels", 0, "name"), "a;b", "damaged"),
        (("kernels", 0, "threads"), [64, 0, 1], "no threads"),
        (("kernels", 0, "threads"), None, "no threads"),
        (("steps", 0, "kernel"), 1, "kernel 1, which is not there"),
        (("steps", 0, "arguments"), [0, 1], "2 arguments of 3"),
        (("steps", 0, "arguments"), [0, 3, ["int32", 1]], "tensor 3, which is not there"),
        (("steps", 0, "arguments"), [0, 1, 2], "a buffer for a scalar"),
        (("steps", 0, "arguments"), [0, ["int32", 1], ["int32", 1]], "a scalar for a buffer"),
        (("steps", 0, "arguments"), [0, 1, ["float32", 1]], "damaged"),
        (("steps", 0, "grid"), None, "no grid"),
        (("flavour",), "npu", "damaged"),
    ],
)
def test_damage_is_refused(path: tuple[Any, ...], value: Any, reason: str) -> None:
    data = as_data(doubling())
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ArtifactError, match=reason):
        decode_plan(msgspec.json.encode(data))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"{}", b'{"schema_version":1}', b"[" * 100_000])
def test_what_is_no_plan(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        decode_plan(data)


def test_another_schema() -> None:
    data = as_data(doubling()) | {"schema_version": 2}
    with pytest.raises(ArtifactVersionError):
        decode_plan(msgspec.json.encode(data))


def test_a_symbol_twice() -> None:
    symbol = doubling().symbols[0]
    with pytest.raises(ValueError, match="defined twice"):
        encode_plan(doubling(symbols=(symbol, symbol)))
