from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

TOLERANCE = 3e-5


class Case(NamedTuple):
    """A convolution: NHWC input shape, output channels, and what ConvGeometry takes."""

    shape: tuple[int | str, int | str, int | str, int]
    channels: int
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def filters(case: Case) -> Any:
    """OHWI filters of a case."""
    depth = case.shape[3] // case.groups
    scale = (depth * case.kernel[0] * case.kernel[1]) ** -0.5
    return (normal(case.channels, *case.kernel, depth) * scale).astype(np.float32)


def convolve(x: Any, w: Any, case: Case) -> Any:
    """The convolution of NHWC ``x`` with OHWI filters, one filter tap at a time."""
    top, left, bottom, right = case.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))).astype(np.float64)
    (sh, sw), (dh, dw) = case.strides, case.dilation
    height = (x.shape[1] - (case.kernel[0] - 1) * dh - 1) // sh + 1
    width = (x.shape[2] - (case.kernel[1] - 1) * dw - 1) // sw + 1
    out = np.zeros((x.shape[0], height, width, case.channels))
    inside, outside = x.shape[3] // case.groups, case.channels // case.groups
    for r in range(case.kernel[0]):
        for s in range(case.kernel[1]):
            tap = x[:, r * dh :, s * dw :][:, : height * sh : sh, : width * sw : sw]
            for g in range(case.groups):
                own = slice(g * outside, (g + 1) * outside)
                out[..., own] += tap[..., g * inside : (g + 1) * inside] @ w[own, r, s].T
    return out.astype(np.float32)


def convolution(unit: Any, builder: Any, x: Any, case: Case, expected_rows: int = 64) -> Any:
    from tvm import relax

    from assay.compile.schedules.conv2d import ConvGeometry, conv2d, pack_filters
    from assay.compile.schedules.tiles import choose_panel_width

    geometry = ConvGeometry(
        kernel=case.kernel,
        strides=case.strides,
        dilation=case.dilation,
        padding=case.padding,
        groups=case.groups,
    )
    width = choose_panel_width(unit, expected_rows, case.channels // case.groups)
    packed = relax.const(pack_filters(filters(case), case.groups, width))
    return builder.emit_te(lambda a, b: conv2d(a, b, geometry, case.channels), x, packed)


def compare(check: Any, *cases: Case) -> None:
    """Convolutions with a bias and ReLU, each on an input of its own."""
    from tvm import relax

    def build(builder: Any, *inputs: Any) -> Any:
        results = []
        for x, case in zip(inputs, cases, strict=True):
            y = convolution(check.unit, builder, x, case)
            y = builder.emit(relax.op.add(y, relax.const(normal(case.channels))))
            results.append(builder.emit(relax.op.nn.relu(y)))
        return relax.Tuple(results)

    def reference(*arrays: Any) -> Any:
        return tuple(
            np.maximum(convolve(x, filters(case), case) + normal(case.channels), 0)
            for x, case in zip(arrays, cases, strict=True)
        )

    check(build, reference, *((case.shape, "float32") for case in cases), tolerance=TOLERANCE)


def test_kernels_strides_and_paddings(check: Any) -> None:
    compare(
        check,
        Case((1, 9, 11, 3), 24, padding=(1, 1, 1, 1)),
        Case((2, 13, 7, 24), 7, strides=(2, 2), padding=(0, 1, 1, 2)),
        Case((1, 15, 13, 3), 17, kernel=(7, 7), strides=(4, 4), padding=(3, 3, 3, 3)),
        Case((1, 7, 9, 8), 100, kernel=(1, 1), strides=(2, 2)),
    )


def test_dilation_and_groups(check: Any) -> None:
    compare(
        check,
        Case((1, 11, 9, 6), 10, dilation=(2, 2), padding=(2, 2, 2, 2)),
        Case((1, 7, 9, 24), 12, groups=2, padding=(1, 1, 1, 1)),
        Case((2, 5, 5, 8), 100, kernel=(1, 1), groups=4),
        Case((1, 8, 21, 8), 36, kernel=(5, 5), groups=4, dilation=(1, 3), padding=(2, 6, 2, 6)),
    )


@pytest.mark.parametrize("size", [pytest.param((3, 4), id="3x4")])
def test_one_sided_kernels(check: Any, size: tuple[int, int]) -> None:
    compare(
        check,
        Case((1, *size, 5), 9, kernel=(1, 3), padding=(0, 1, 0, 1)),
        Case((1, *size, 5), 9, kernel=(3, 1), padding=(2, 0, 0, 0)),
        Case((1, *size, 5), 9, kernel=size),
    )


def test_symbolic_batch_and_size(check: Any) -> None:
    case = Case(("n", "h", 9, 5), 20, strides=(2, 2), padding=(1, 1, 1, 1))
    check(
        lambda builder, x: convolution(check.unit, builder, x, case),
        lambda x: convolve(x, filters(case), case),
        (case.shape, "float32"),
        at=[{"n": n, "h": h} for n, h in ((1, 2), (3, 7), (2, 12))],
        expected={"n": 1, "h": 8},
        tolerance=TOLERANCE,
    )


def test_residual_is_added_on_the_tile(check: Any) -> None:
    from tvm import relax

    case = Case((1, 6, 5, 8), 8, padding=(1, 1, 1, 1))

    def build(builder: Any, x: Any, r: Any) -> Any:
        y = convolution(check.unit, builder, x, case)
        return builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(y, r))))

    check(
        build,
        lambda x, r: np.maximum(convolve(x, filters(case), case) + r, 0),
        (case.shape, "float32"),
        ((1, 6, 5, 8), "float32"),
        tolerance=TOLERANCE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("channels", [(3, 24), (24, 100)], ids=str)
def test_many_convolutions(check: Any, kernel: int, stride: int, channels: tuple[int, int]) -> None:
    inside, outside = channels
    common: dict[str, Any] = {"kernel": (kernel, kernel), "strides": (stride, stride)}
    compare(
        check,
        Case((1, 13, 15, inside), outside, padding=(kernel // 2,) * 4, **common),
        Case((2, 14, 17, inside), outside, padding=(0, kernel // 2, 1, 0), dilation=(2, 2), **common),
        Case((1, 8, 31, inside * 4), outside * 4, groups=4, **common),
    )
