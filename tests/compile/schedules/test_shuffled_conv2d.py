from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.schedules.shuffled_conv2d import ShuffledChannels, pack_shuffled, shuffled_conv2d


def shuffled(x: Any, channels: ShuffledChannels) -> Any:
    split = x.reshape(*x.shape[:3], channels.outer, channels.inner)
    return split.transpose(0, 1, 2, 4, 3).reshape(x.shape)


def grouped(x: Any, filters: Any, groups: int, strides: tuple[int, int]) -> Any:
    """A 1 x 1 convolution in groups, NHWC; filters ``[O, I / groups]``."""
    x = x[:, :: strides[0], :: strides[1]]
    inputs, outputs = np.split(x, groups, axis=-1), np.split(filters, groups)
    return np.concatenate([a @ b.T for a, b in zip(inputs, outputs, strict=True)], axis=-1)


CASES = (
    # Runs that end between channels, runs that fit, more parts than groups, one channel a part.
    (ShuffledChannels(groups=4, outer=4, inner=7), 20, (1, 1)),
    (ShuffledChannels(groups=2, outer=2, inner=8), 6, (2, 1)),
    (ShuffledChannels(groups=3, outer=6, inner=5), 27, (1, 2)),
    (ShuffledChannels(groups=3, outer=9, inner=1), 3, (1, 1)),
)


def filters(channels: ShuffledChannels, outputs: int) -> Any:
    return np.random.default_rng(1).standard_normal((outputs, channels.per_group)).astype(np.float32)


@pytest.mark.parametrize("batch", [2, "batch"])
def test_against_numpy(check: Any, batch: int | str) -> None:
    from tvm import relax

    cases = CASES if batch == 2 else CASES[:1]

    def build(builder: Any, *inputs: Any) -> Any:
        results = []
        for x, (channels, outputs, strides) in zip(inputs, cases, strict=True):
            packed = relax.const(pack_shuffled(filters(channels, outputs), channels, 16))
            product = builder.emit_te(
                lambda a, b, c=channels, s=strides, n=outputs: shuffled_conv2d(a, b, c, s, n), x, packed
            )
            bias = relax.const(np.arange(outputs, dtype=np.float32))
            results.append(builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(product, bias)))))
        return relax.Tuple(results)

    def reference(*inputs: Any) -> Any:
        return tuple(
            np.maximum(
                grouped(shuffled(x, channels), filters(channels, outputs), channels.groups, strides)
                + np.arange(outputs, dtype=np.float32),
                0,
            )
            for x, (channels, outputs, strides) in zip(inputs, cases, strict=True)
        )

    shapes = [((batch, 5, 6, channels.outer * channels.inner), "float32") for channels, _, _ in cases]
    sizes = [{}] if batch == 2 else [{"batch": 1}, {"batch": 3}]
    check(build, reference, *shapes, at=sizes, tolerance=1e-4)


def test_a_run_holds_all_channels_of_every_group() -> None:
    for groups, outer, inner in ((4, 4, 34), (4, 4, 28), (3, 6, 5), (2, 8, 3)):
        channels = ShuffledChannels(groups=groups, outer=outer, inner=inner)
        for group in range(groups):
            read = {
                (channels.first(group) + j) * outer + a for a in range(outer) for j in range(channels.run)
            }
            assert set(range(group * channels.per_group, (group + 1) * channels.per_group)) <= read
            assert max(read) < outer * inner
