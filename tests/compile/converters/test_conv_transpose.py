from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, Any]]


def scatter(x: Any, w: Any, b: Any, strides: tuple[int, int], groups: int) -> Any:
    """Every input pixel times the filters, added where it lands; without padding."""
    batch, channels, height, width = x.shape
    (down, right), (_, outputs, tall, wide) = strides, w.shape
    shape = (batch, groups * outputs, (height - 1) * down + tall, (width - 1) * right + wide)
    y = np.zeros(shape) + b[None, :, None, None]
    for group in range(groups):
        for c in range(group * channels // groups, (group + 1) * channels // groups):
            for h in range(height):
                for v in range(width):
                    spot = y[:, group * outputs : (group + 1) * outputs, h * down :, v * right :]
                    spot[:, :, :tall, :wide] += x[:, c, h, v, None, None, None] * w[c]
    return y


CASES: dict[str, dict[str, Any]] = {
    "taps do not overlap": {"kernel": (2, 2), "strides": (2, 2)},
    "taps overlap": {"kernel": (4, 4), "strides": (2, 2), "pads": [1, 1, 1, 1]},
    "uneven": {"kernel": (3, 5), "strides": (2, 3), "pads": [1, 0, 0, 2], "output_padding": [1, 0]},
    "groups": {"kernel": (3, 3), "strides": (2, 1), "group": 3, "pads": [0, 1, 1, 0]},
    "gaps between taps": {"kernel": (1, 2), "strides": (3, 3)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_numpy(make_model: MakeModel, run_compiled: Run, case: dict[str, Any]) -> None:
    random = np.random.default_rng(1)
    kernel, strides, groups = case["kernel"], case["strides"], case.get("group", 1)
    pads, more = case.get("pads", [0] * 4), case.get("output_padding", [0, 0])
    x = random.standard_normal((2, 6, 4, 5), dtype=np.float32)
    w = random.standard_normal((6, 4, *kernel), dtype=np.float32)
    b = random.standard_normal(4 * groups, dtype=np.float32)
    expected = np.pad(scatter(x, w, b, strides, groups), ((0, 0), (0, 0), (0, more[0]), (0, more[1])))
    expected[:, :, expected.shape[2] - more[0] :] = b[None, :, None, None]
    expected = expected[:, :, pads[0] : expected.shape[2] - pads[2], pads[1] : expected.shape[3] - pads[3]]
    attributes = {key: value for key, value in case.items() if key != "kernel"}
    model = make_model(
        [node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes)],
        {"x": ["batch", 6, 4, 5]},
        {"y": ["batch", *expected.shape[1:]]},
        {"w": w, "b": b},
    )
    np.testing.assert_allclose(run_compiled(model, {"x": x})["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "attributes", [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [9, 11]}], ids=str
)
def test_padding_from_the_shape(
    make_model: MakeModel, agree: Callable[..., None], attributes: dict[str, Any]
) -> None:
    random = np.random.default_rng(2)
    size = attributes.get("output_shape", [8, 10])
    model = make_model(
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], **attributes)],
        {"x": [1, 3, 4, 5]},
        {"y": [1, 2, *size]},
        {"w": random.standard_normal((3, 2, 3, 3), dtype=np.float32)},
    )
    agree(model, {"x": random.standard_normal((1, 3, 4, 5), dtype=np.float32)})
