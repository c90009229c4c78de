from __future__ import annotations

import math

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import relax, te, tirx  # noqa: E402

op = relax.op


def scalar(value):
    return relax.const(np.float32(value))


def erf(x):
    return np.vectorize(math.erf)(x.astype("float64"))


def test_flat(check):
    check(
        lambda b, x, y: op.nn.relu(b.emit(op.add(x, y))),
        lambda x, y: np.maximum(x + y, 0),
        ((3, 5, 7), "float32"),
        ((3, 5, 7), "float32"),
    )


@pytest.mark.parametrize("length", [1, 3, 8, 13, 64, 67, 100])
def test_row_lengths(check, length):
    check(
        lambda b, x, y: op.nn.relu(b.emit(op.add(x, y))),
        lambda x, y: np.maximum(x + y, 0),
        ((3, length), "float32"),
        ((length,), "float32"),
    )


SIZES = [{"m": m, "n": n} for m, n in ((1, 1), (3, 7), (2, 8), (4, 64), (2, 77), (1, 100))]


def test_symbolic_light(check):
    check(
        lambda b, x, y: op.add(x, y),
        lambda x, y: x + y,
        (("m", "n"), "float32"),
        (("n",), "float32"),
        at=SIZES,
    )


def test_symbolic_heavy(check):
    check(
        lambda b, x, y: op.tanh(b.emit(op.add(x, y))),
        lambda x, y: np.tanh(x + y),
        (("m", "n"), "float32"),
        (("m", 1), "float32"),
        at=SIZES,
    )


def test_gelu(check):
    check(
        lambda b, x: op.nn.gelu(x),
        lambda x: (0.5 * x * (1 + erf(x / math.sqrt(2)))).astype("float32"),
        (("m", 13), "float32"),
        at=[{"m": 1}, {"m": 9}],
    )


def test_large_is_shared_between_threads(check, scheduled):
    inputs = (((300, 301), "float32"), ((300, 301), "float32"))
    check(lambda b, x, y: op.add(x, y), lambda x, y: x + y, *inputs)
    assert "T.parallel" in scheduled(lambda b, x, y: op.add(x, y), *inputs)
    small = [((30, 31), dtype) for _, dtype in inputs]
    assert "T.parallel" not in scheduled(lambda b, x, y: op.add(x, y), *small)


def test_two_outputs_of_one_space(check):
    def cell(x, c):
        state = te.compute(x.shape, lambda i, j: tirx.sigmoid(x[i, j]) * c[i, j], name="state")
        return [state, te.compute(x.shape, lambda i, j: tirx.tanh(state[i, j]), name="output")]

    def reference(x, c):
        state = c / (1 + np.exp(-x))
        return state, np.tanh(state)

    check(lambda b, x, c: b.call_te(cell, x, c), reference, ((3, 37), "float32"), ((3, 37), "float32"))


def test_where_on_bool(check):
    check(
        lambda b, m, x: op.where(m, x, scalar(-1e9)),
        lambda m, x: np.where(m, x, np.float32(-1e9)),
        ((3, 1, 37), "bool"),
        ((3, 5, 37), "float32"),
    )


def test_comparison_of_int64(check):
    check(
        lambda b, x, y: op.astype(
            b.emit(op.logical_and(b.emit(op.less(x, y)), b.emit(op.not_equal(x, relax.const(np.int64(1)))))),
            "float32",
        ),
        lambda x, y: ((x < y) & (x != 1)).astype("float32"),
        ((5, 37), "int64"),
        ((5, 37), "int64"),
    )


def test_bool_output(check):
    check(lambda b, x, y: op.greater(x, y), lambda x, y: x > y, ((5, 37), "float32"), ((5, 37), "float32"))


@pytest.mark.parametrize(
    ("source", "result"), [("float32", "int64"), ("int64", "float32"), ("bool", "int64")]
)
def test_cast(check, source, result):
    check(lambda b, x: op.astype(x, result), lambda x: x.astype(result), ((5, 37), source))


def test_integer_arithmetic(check):
    check(
        lambda b, x, y: op.add(b.emit(op.multiply(x, y)), x),
        lambda x, y: x * y + x,
        ((5, 37), "int64"),
        ((5, 37), "int64"),
    )


def test_scalar(check):
    check(lambda b, x, y: op.add(x, y), lambda x, y: x + y, ((), "float32"), ((), "float32"))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat(check, axis):
    shapes = [[2, 3, 9] for _ in range(3)]
    for shape, size in zip(shapes, (5, 16, 7), strict=True):
        shape[axis] = size
    check(
        lambda b, x, y, z: op.concat([x, b.emit(op.nn.relu(y)), z], axis=axis),
        lambda x, y, z: np.concatenate([x, np.maximum(y, 0), z], axis),
        *((tuple(shape), "float32") for shape in shapes),
    )


def test_concat_over_channels_has_no_scalar_selection(scheduled):
    script = scheduled(
        lambda b, x, y: op.concat([x, y], axis=-1), ((4, 4, 16), "float32"), ((4, 4, 24), "float32")
    )
    assert "if_then_else" not in script
    assert "if " not in script


def test_concat_of_symbolic_sizes(check):
    check(
        lambda b, x, y: op.nn.relu(b.emit(op.concat([x, y], axis=1))),
        lambda x, y: np.maximum(np.concatenate([x, y], 1), 0),
        (("m", "p", 5), "float32"),
        (("m", "q", 5), "float32"),
        at=[{"m": 1, "p": 3, "q": 4}, {"m": 20, "p": 1, "q": 9}],
    )


def test_pad(check):
    check(
        lambda b, x: op.nn.relu(b.emit(op.nn.pad(x, [0, 0, 1, 2, 2, 1, 0, 0], "constant", 0.5))),
        lambda x: np.maximum(np.pad(x, ((0, 0), (1, 2), (2, 1), (0, 0)), constant_values=0.5), 0),
        ((2, 6, 7, 10), "float32"),
    )


def test_pad_of_symbolic_sizes(check):
    check(
        lambda b, x: op.nn.pad(x, [0, 0, 1, 2, 2, 1, 3, 0]),
        lambda x: np.pad(x, ((0, 0), (1, 2), (2, 1), (3, 0))),
        ((2, "h", "w", 10), "float32"),
        at=[{"h": 1, "w": 1}, {"h": 3, "w": 5}, {"h": 30, "w": 21}],
    )


def test_triangle(check):
    check(
        lambda b, x: op.tril(x, 0),
        lambda x: np.tril(x),
        ((2, "s", "s"), "float32"),
        at=[{"s": 1}, {"s": 5}, {"s": 33}],
    )


@pytest.mark.parametrize(("start", "stop", "step"), [(3, 30, 1), (3, 30, 3), (0, 37, 2)])
def test_slice(check, start, stop, step):
    check(
        lambda b, x: op.strided_slice(x, [1, 2], [1, start], [6, stop], [2, step]),
        lambda x: x[:, 1:6:2, start:stop:step],
        ((2, 6, 37), "float32"),
    )


def test_gather_of_rows(check):
    check(
        lambda b, x, i, y: op.add(b.emit(op.take(x, i, axis=0, mode="clip")), y),
        lambda x, i, y: x[i] + y,
        ((10, 21), "float32"),
        ((2, "s"), "int64"),
        (("s", 21), "float32"),
        at=[{"s": 1}, {"s": 6}],
    )


def test_resize(check):
    def nearest(x):
        return x.repeat(2, 1).repeat(2, 2)

    check(
        lambda b, x: op.image.resize2d(
            x, (14, 10), layout="NHWC", method="nearest_neighbor",
            coordinate_transformation_mode="asymmetric", rounding_method="floor",
        ),
        nearest,
        ((1, 7, 5, 20), "float32"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift"])
def test_bits(check, name):
    check(
        lambda b, x, y: getattr(op, name)(x, y),
        lambda x, y: getattr(np, name)(x, y),
        ((5, 37), "int64"),
        ((5, 37), "int64"),
    )


def test_bits_not(check):
    check(lambda b, x: op.bitwise_not(x), lambda x: ~x, ((5, 37), "int64"))
