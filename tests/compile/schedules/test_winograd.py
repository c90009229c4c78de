from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

# Against float64: F(4x4, 3x3) rounds a little more than a direct sum.
TOLERANCE = 3e-5


class Case(NamedTuple):
    """A 3x3 convolution: NHWC input shape, output channels, padding, and the plan that is forced on it."""

    shape: tuple[int | str, int | str, int | str, int]
    channels: int
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    outputs: int = 4
    width: int = 16
    tiles: int = 7
    panels: int = 1


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def filters(case: Case) -> Any:
    """OHWI filters of a case."""
    depth = case.shape[3]
    return (normal(case.channels, 3, 3, depth) * (9 * depth) ** -0.5).astype(np.float32)


def convolve(x: Any, case: Case) -> Any:
    """The convolution of NHWC ``x`` in float64, one filter tap at a time."""
    top, left, bottom, right = case.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))).astype(np.float64)
    height, width = x.shape[1] - 2, x.shape[2] - 2
    taps = [
        x[:, r : r + height, s : s + width] @ filters(case)[:, r, s].T for r in range(3) for s in range(3)
    ]
    return np.sum(taps, axis=0)


def convolution(builder: Any, x: Any, case: Case) -> Any:
    from tvm import relax

    from assay.compile.passes.contractions import OUT_ELEMENTWISE_FUSABLE
    from assay.compile.schedules.conv2d import ConvGeometry
    from assay.compile.schedules.conv_plan import ConvAlgorithm, ConvPlan
    from assay.compile.schedules.winograd import pack_winograd_filters, winograd_conv2d

    geometry = ConvGeometry(kernel=(3, 3), strides=(1, 1), dilation=(1, 1), padding=case.padding, groups=1)
    plan = ConvPlan(
        algorithm=ConvAlgorithm(f"winograd{case.outputs}"),
        panel_width=case.width,
        tiles=case.tiles,
        panels=case.panels,
    )
    packed = relax.const(pack_winograd_filters(filters(case), plan))
    return builder.emit_te(
        lambda a, b: winograd_conv2d(a, b, geometry, case.channels, plan),
        x,
        packed,
        primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSABLE},
    )


def compare(check: Any, *cases: Case) -> None:
    """Convolutions with a bias and ReLU, each on an input of its own."""
    from tvm import relax

    def build(builder: Any, *inputs: Any) -> Any:
        results = []
        for x, case in zip(inputs, cases, strict=True):
            y = builder.emit(relax.op.add(convolution(builder, x, case), relax.const(normal(case.channels))))
            results.append(builder.emit(relax.op.nn.relu(y)))
        return relax.Tuple(results)

    def reference(*arrays: Any) -> Any:
        return tuple(
            np.maximum(convolve(x, case) + normal(case.channels), 0)
            for x, case in zip(arrays, cases, strict=True)
        )

    check(build, reference, *((case.shape, "float32") for case in cases), tolerance=TOLERANCE)


@pytest.mark.parametrize("outputs", [2, 4])
def test_odd_sizes_channels_and_paddings(check: Any, outputs: int) -> None:
    compare(
        check,
        Case((1, 9, 11, 13), 24, outputs=outputs),
        Case((2, 8, 8, 16), 37, outputs=outputs, tiles=3, panels=3),
        Case((1, 3, 17, 5), 9, padding=(0, 0, 0, 0), outputs=outputs, tiles=2),
        Case((1, 6, 1, 8), 16, padding=(2, 1, 0, 2), outputs=outputs, tiles=1),
    )


def test_blocks_shared_between_threads(check: Any) -> None:
    # Nine or more blocks go to the threads; of fewer, the groups of panels do.
    compare(check, Case((1, 20, 23, 8), 40, tiles=3), Case((3, 12, 12, 8), 64, tiles=27, panels=2))


def test_symbolic_batch_and_size(check: Any) -> None:
    case = Case(("n", "h", 9, 12), 20, tiles=5)
    check(
        lambda builder, x: convolution(builder, x, case),
        lambda x: convolve(x, case),
        (case.shape, "float32"),
        at=[{"n": n, "h": h} for n, h in ((1, 1), (3, 7), (2, 12))],
        expected={"n": 1, "h": 8},
        tolerance=TOLERANCE,
    )


def test_residual_is_added_on_the_tile(check: Any, scheduled: Any) -> None:
    from tvm import relax

    case = Case((1, 6, 5, 8), 12)

    def build(builder: Any, x: Any, r: Any) -> Any:
        y = builder.emit(relax.op.add(convolution(builder, x, case), r))
        return builder.emit(relax.op.nn.relu(y))

    inputs = ((case.shape, "float32"), ((1, 6, 5, 12), "float32"))
    check(build, lambda x, r: np.maximum(convolve(x, case) + r, 0), *inputs, tolerance=TOLERANCE)
    # One kernel, and no workspace of the output's shape before the sum.
    allocations = [line for line in scheduled(build, *inputs).splitlines() if "alloc" in line]
    assert allocations
    assert not any("(1, 6, 5, 12)" in line for line in allocations)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 10, 14, 17])
def test_many_convolutions(check: Any, outputs: int, size: int) -> None:
    compare(
        check,
        Case((1, size, size + 3, 24), 40, outputs=outputs, tiles=6),
        Case((2, size + 2, size + 2, 32), 64, padding=(0, 0, 0, 0), outputs=outputs, tiles=4, panels=4),
        Case((1, size, 29, 3), 48, padding=(1, 0, 1, 2), outputs=outputs, width=32, tiles=5, panels=2),
    )
