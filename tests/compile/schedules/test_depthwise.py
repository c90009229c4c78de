from __future__ import annotations

from typing import Any

import numpy as np
import pytest

TOLERANCE = 2e-5


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def reference(x: Any, w: Any, stride: int, dilation: int, padding: tuple[int, int, int, int]) -> Any:
    """Each channel of NHWC ``x`` with its own filter of ``w`` [KH, KW, C]."""
    top, left, bottom, right = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))).astype(np.float64)
    size = w.shape[0]
    extents = [(extent - (size - 1) * dilation - 1) // stride + 1 for extent in x.shape[1:3]]
    out = np.zeros((x.shape[0], *extents, x.shape[3]))
    for r in range(size):
        for s in range(size):
            tap = x[:, r * dilation :, s * dilation :]
            out += tap[:, : extents[0] * stride : stride, : extents[1] * stride : stride] * w[r, s]
    return out.astype(np.float32)


def compare(
    check: Any, shape: tuple[int | str, ...], channels: int, size: int, stride: int, padding: tuple[int, ...],
    dilation: int = 1, **options: Any,
) -> None:  # fmt: skip
    """A depthwise convolution with bias and the residual of its own input where the shapes are the same."""
    from tvm import relax

    from assay.compile.passes.contractions import OUT_ELEMENTWISE_FUSABLE
    from assay.compile.schedules.conv2d import ConvGeometry
    from assay.compile.schedules.depthwise import depthwise_conv2d

    w, b = normal(size, size, channels) / size, normal(channels)
    top, left, bottom, right = padding
    geometry = ConvGeometry(
        kernel=(size, size),
        strides=(stride, stride),
        dilation=(dilation, dilation),
        padding=(top, left, bottom, right),
        groups=channels,
    )

    def build(builder: Any, x: Any) -> Any:
        y = builder.emit_te(
            lambda a, b: depthwise_conv2d(a, b, geometry),
            x,
            relax.const(w),
            primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSABLE},
        )
        y = builder.emit(relax.op.add(y, relax.const(b)))
        return builder.emit(relax.op.nn.relu(y))

    check(
        build,
        lambda x: np.maximum(reference(x, w, stride, dilation, (top, left, bottom, right)) + b, 0),
        ((*shape, channels), "float32"),
        tolerance=TOLERANCE,
        **options,
    )


@pytest.mark.parametrize(
    ("shape", "channels", "size", "stride", "padding"),
    [
        ((1, 7, 9), 3, 3, 1, (1, 1, 1, 1)),
        ((2, 8, 11), 21, 3, 2, (0, 0, 1, 1)),
        ((1, 9, 6), 40, 5, 2, (2, 2, 2, 2)),
        ((1, 5, 5), 17, 5, 1, (2, 2, 2, 2)),
    ],
    ids=str,
)
def test_depthwise_convolution(
    check: Any, shape: tuple[int, ...], channels: int, size: int, stride: int, padding: tuple[int, ...]
) -> None:
    compare(check, shape, channels, size, stride, padding)


@pytest.mark.slow
def test_depthwise_convolution_of_symbolic_sizes(check: Any) -> None:
    compare(
        check,
        ("n", "h", "w"),
        19,
        3,
        1,
        (1, 1, 1, 1),
        at=[{"n": n, "h": h, "w": w} for n, h, w in ((1, 1, 1), (2, 5, 9), (1, 8, 4))],
        expected={"n": 1, "h": 8, "w": 8},
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [16, 35])
@pytest.mark.parametrize("dilation", [1, 2])
def test_many_depthwise_convolutions(
    check: Any, size: int, stride: int, channels: int, dilation: int
) -> None:
    compare(check, (1, 14, 15), channels, size, stride, (size // 2, 0, 1, size), dilation)
