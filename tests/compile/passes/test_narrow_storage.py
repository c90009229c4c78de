"""Tensors without 64- and 8-bit integers, bool and float64: compiled for the CPU, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tvm
from tvm import relax, te, tirx

from assay.compile.passes.narrow_storage import narrow_storage, packed_array, stored_array
from assay.compile.targets.webgpu import WITHOUT
from assay.errors import UnsupportedOperatorError

ROWS, COLUMNS = 6, 10
Array = npt.NDArray[Any]


def module_of(inputs: dict[str, Any], compute: Any, constants: list[Array] | None = None) -> Any:
    """A module whose ``main`` calls one kernel, ``compute`` of placeholders, on inputs and constants."""
    builder = relax.BlockBuilder()
    params = [relax.Var(name, ty) for name, ty in inputs.items()]
    with builder.function("main", params):
        with builder.dataflow():
            operands = [*params, *(relax.const(each) for each in constants or [])]
            result = builder.emit_output(builder.call_te(compute, *operands))
        builder.emit_func_output(result)
    return builder.get()


def dtypes_in(module: Any) -> set[str]:
    """The dtypes of all buffers of all kernels."""
    found: set[str] = set()

    def note(node: Any) -> None:
        if hasattr(node, "alloc_buffers"):
            found.update(str(buffer.ty.dtype) for buffer in node.alloc_buffers)
        for child in ("body", "block", "init"):
            if getattr(node, child, None) is not None:
                note(getattr(node, child))
        for each in getattr(node, "seq", []):
            note(each)

    for function in module.functions.values():
        if isinstance(function, tirx.PrimFunc):
            found.update(str(p.ty.dtype) for p in function.params if hasattr(p.ty, "shape"))
            note(function.body)
    return found


def run(module: Any, *arrays: Array) -> Array:
    """The output of ``module`` as compiled for this machine, from arrays of the dtypes of its inputs."""
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    parameters = module["main"].params
    held = [
        tvm.runtime.tensor(np.asarray(array, str(parameter.ty.dtype)))
        for array, parameter in zip(arrays, parameters, strict=True)
    ]
    result: Array = machine["main"](*held).numpy()
    return result


def narrowed(inputs: dict[str, Any], compute: Any, *arrays: Array, constants: Any = None) -> Array:
    """What the narrow form of a kernel gives, having checked that no dtype is left that it must not have."""
    module = narrow_storage(module_of(inputs, compute, constants), WITHOUT)
    assert not dtypes_in(module) & set(WITHOUT)
    return run(module, *arrays)


def matrix(dtype: str) -> Any:
    return relax.TensorType([ROWS, COLUMNS], dtype)


def numbers(low: int, high: int, dtype: str, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> Array:
    return np.random.default_rng(3).integers(low, high, shape).astype(dtype)


def test_ids_of_64_bits_index_a_table() -> None:
    table, ids = numbers(-50, 50, "float32", (40, 7)), numbers(0, 40, "int64")

    def take(i: Any, t: Any) -> Any:
        return te.compute((ROWS, COLUMNS, 7), lambda a, b, c: t[i[a, b], c], "take")

    found = narrowed({"ids": matrix("int64")}, take, ids, constants=[table])
    np.testing.assert_array_equal(found, table[ids])


def test_a_loop_variable_becomes_a_value() -> None:
    def add_position(x: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda a, b: x[a, b] + a * COLUMNS + b, "positions")

    x = numbers(-1000, 1000, "int64")
    found = narrowed({"x": matrix("int64")}, add_position, x)
    np.testing.assert_array_equal(found, x + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS))


def test_a_symbolic_size_becomes_a_value() -> None:
    n = tirx.Var("n", "int64")

    def scale(x: Any) -> Any:
        return te.compute((n,), lambda a: x[a] * n, "scale")

    x = numbers(-9, 9, "int64", (5,))
    found = narrowed({"x": relax.TensorType([n], "int64")}, scale, x)
    np.testing.assert_array_equal(found, x * 5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_sums_of_narrow_integers_wrap_as_they_did(dtype: str) -> None:
    limits = np.iinfo(dtype)
    x, y = (
        np.random.default_rng(s).integers(limits.min, limits.max + 1, (ROWS, COLUMNS), dtype) for s in (0, 1)
    )

    def mix(a: Any, b: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda i, j: a[i, j] * b[i, j] + a[i, j] - b[i, j], "mix")

    found = narrowed({"x": matrix(dtype), "y": matrix(dtype)}, mix, x, y)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, (x * y + x - y).astype("int32"))


@pytest.mark.parametrize(
    ("source", "target"), [("int32", "int8"), ("int32", "uint8"), ("int16", "uint8"), ("int8", "uint16")]
)
def test_a_cast_to_fewer_bits_keeps_the_low_ones(source: str, target: str) -> None:
    x = numbers(-100, 100, source) * (300 if source == "int32" else 1)

    def cast(a: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda i, j: tirx.Cast(target, a[i, j]), "cast")

    found = narrowed({"x": matrix(source)}, cast, x)
    np.testing.assert_array_equal(found, x.astype(target).astype("int32"))


def test_masks_are_numbers_between_kernels() -> None:
    x, mask = numbers(-9, 9, "float32"), numbers(0, 2, "bool")

    def choose(a: Any, m: Any) -> Any:
        flipped = te.compute((ROWS, COLUMNS), lambda i, j: tirx.Not(m[i, j]), "flipped")
        return te.compute(
            (ROWS, COLUMNS), lambda i, j: tirx.Select(flipped[i, j], a[i, j], -a[i, j]), "choose"
        )

    found = narrowed({"x": matrix("float32"), "mask": matrix("bool")}, choose, x, mask)
    np.testing.assert_array_equal(found, np.where(~mask, x, -x))


def test_a_mask_as_output_is_zero_or_one() -> None:
    x = numbers(-9, 9, "int64")

    def positive(a: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda i, j: a[i, j] > 0, "positive")

    found = narrowed({"x": matrix("int64")}, positive, x)
    np.testing.assert_array_equal(found, (x > 0).astype("int32"))


def test_float64_is_computed_in_32_bits() -> None:
    x = np.random.default_rng(0).standard_normal((ROWS, COLUMNS))

    def exp(a: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda i, j: tirx.exp(a[i, j] * tirx.const(0.1, "float64")), "exp")

    found = narrowed({"x": matrix("float64")}, exp, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.exp(x * 0.1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool"])
def test_packed_weights_are_read_element_by_element(dtype: str) -> None:
    limits = (0, 2) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    weight, x = numbers(*limits, dtype, (COLUMNS, 7)), numbers(-5, 5, "float32")

    def product(a: Any, w: Any) -> Any:
        k = te.reduce_axis((0, COLUMNS), "k")
        return te.compute(
            (ROWS, 7), lambda i, j: te.sum(a[i, k] * tirx.Cast("float32", w[k, j]), k), "product"
        )

    module = narrow_storage(module_of({"x": matrix("float32")}, product, [weight]), WITHOUT)
    (kernel,) = (f for f in module.functions.values() if isinstance(f, tirx.PrimFunc))
    assert [int(size) for size in kernel.params[1].ty.shape] == [COLUMNS, 2]
    np.testing.assert_allclose(run(module, x), x @ weight.astype("float32"), rtol=1e-6)


def test_four_bit_codes_in_bytes_are_unpacked() -> None:
    codes = numbers(0, 256, "uint8", (ROWS, COLUMNS))

    def low_and_high(x: Any, w: Any) -> Any:
        def code(i: Any, j: Any) -> Any:
            shift = tirx.Cast("uint8", (j % 2) * 4)
            return tirx.bitwise_and(tirx.shift_right(w[i, j // 2], shift), tirx.const(15, "uint8"))

        return te.compute(
            (ROWS, 2 * COLUMNS), lambda i, j: tirx.Cast("float32", code(i, j)) + x[i, j // 2], "codes"
        )

    x = numbers(0, 9, "float32")
    found = narrowed({"x": matrix("float32")}, low_and_high, x, constants=[codes])
    expected = np.stack([codes & 15, codes >> 4], -1).reshape(ROWS, -1) + np.repeat(x, 2, axis=1)
    np.testing.assert_array_equal(found, expected)


def test_one_kernel_on_packed_and_on_other_operands() -> None:
    weight, x = numbers(-9, 9, "int8"), numbers(-9, 9, "int8")
    builder = relax.BlockBuilder()
    given = relax.Var("x", matrix("int8"))

    def double(a: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda i, j: a[i, j] + a[i, j], "double")

    with builder.function("main", [given]):
        with builder.dataflow():
            first = builder.emit(builder.call_te(double, given, primfunc_name_hint="double"))
            second = builder.emit(builder.call_te(double, relax.const(weight), primfunc_name_hint="double"))
            both = builder.emit_output(relax.Tuple([first, second]))
        builder.emit_func_output(both)
    module = narrow_storage(builder.get(), WITHOUT)
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    one, two = machine["main"](tvm.runtime.tensor(x.astype("int32")))
    np.testing.assert_array_equal(one.numpy(), x * 2)
    np.testing.assert_array_equal(two.numpy(), weight * 2)


def test_the_last_elements_of_a_row_fill_a_word_of_their_own() -> None:
    words = packed_array(np.array([[1, -1, 2, 3, 4]], np.int8))
    np.testing.assert_array_equal(words, [[0x0302FF01, 4]])
    assert words.dtype == np.int32


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**40])
def test_a_constant_beyond_32_bits_is_refused(value: int) -> None:
    with pytest.raises(UnsupportedOperatorError, match="beyond 32 bits"):
        stored_array(np.array([0, value]), WITHOUT)


def test_the_extremes_of_int64_stand_for_no_bound() -> None:
    extremes = np.array([np.iinfo(np.int64).min, 5, np.iinfo(np.int64).max])
    np.testing.assert_array_equal(stored_array(extremes, WITHOUT), [-(2**31), 5, 2**31 - 1])


def test_a_number_in_a_kernel_beyond_32_bits_is_refused() -> None:
    def scale(a: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda i, j: a[i, j] * tirx.const(2**40, "int64"), "scale")

    with pytest.raises(UnsupportedOperatorError, match=r"scale.*1099511627776"):
        narrow_storage(module_of({"x": matrix("int64")}, scale), WITHOUT)


def test_a_number_wrapped_to_32_bits_by_hand_is_wrapped() -> None:
    """As a cast to int32 is written: the remainder by 2**32, less 2**32 where it is 2**31 or more."""

    def wrap(a: Any) -> Any:
        def element(i: Any, j: Any) -> Any:
            low = tirx.FloorMod(tirx.Cast("int64", a[i, j]), tirx.const(2**32, "int64"))
            high = tirx.GE(low, tirx.const(2**31, "int64"))
            return tirx.Cast("int32", tirx.Select(high, tirx.Sub(low, tirx.const(2**32, "int64")), low))

        return te.compute((ROWS, COLUMNS), element, "wrap")

    x = numbers(-(2**31), 2**31, "int32")
    np.testing.assert_array_equal(narrowed({"x": matrix("int32")}, wrap, x), x)


@pytest.mark.parametrize("number", [2**33, -(2**33)])
@pytest.mark.parametrize("compare", [tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE])
def test_comparisons_with_numbers_beyond_32_bits_are_known(compare: Any, number: int) -> None:
    def both(a: Any) -> Any:
        def element(i: Any, j: Any) -> Any:
            limit = tirx.const(number, "int64")
            one, other = compare(a[i, j], limit), compare(limit, a[i, j])
            return tirx.Cast("int32", one) + 2 * tirx.Cast("int32", other)

        return te.compute((ROWS, COLUMNS), element, "both")

    module = narrow_storage(module_of({"x": matrix("int64")}, both), WITHOUT)
    x = numbers(-9, 9, "int64")
    same = {tirx.LT: np.less, tirx.LE: np.less_equal, tirx.GT: np.greater, tirx.GE: np.greater_equal}
    chosen = same.get(compare, np.equal if compare is tirx.EQ else np.not_equal)
    expected = chosen(x, number) + 2 * chosen(number, x).astype(int)
    np.testing.assert_array_equal(run(module, x), expected)


def test_bits_of_half_precision_cannot_be_read_from_integers() -> None:
    def read(a: Any) -> Any:
        return te.compute((ROWS, COLUMNS), lambda i, j: tirx.reinterpret("int16", a[i, j]), "read")

    with pytest.raises(UnsupportedOperatorError, match="float16 cannot be read as int16"):
        narrow_storage(module_of({"x": matrix("float16")}, read), WITHOUT)


def test_nothing_changes_where_the_target_lacks_nothing() -> None:
    module = module_of({"x": matrix("int64")}, lambda a: te.compute(a.shape, lambda i, j: a[i, j] + 1))
    assert narrow_storage(module, ()) is module
