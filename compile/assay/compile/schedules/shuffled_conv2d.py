"""Grouped pointwise convolution of shuffled channels, which the micro-kernel reads where they lie.

The channels that one group of outputs reads after a shuffle of ``[A, B]`` channels are, before it, one short
run in each of the A parts: an outer reduction loop over the parts takes the place of the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.gemm import pack_panels
from assay.compile.schedules.ir import Expr, Stmt, as_int, flat_view, floordiv, floormod, i64, seq, simplify
from assay.compile.schedules.microkernel import emit_contraction

__all__ = ["ShuffledChannels", "emit_shuffled_conv2d", "pack_shuffled", "shuffled_conv2d"]


@dataclass(frozen=True, kw_only=True)
class ShuffledChannels:
    """``groups`` of consecutive channels of a shuffle's result, found in its source ``[outer, inner]``."""

    groups: int
    outer: int
    inner: int

    @property
    def per_group(self) -> int:
        """Channels that one group reads."""
        return self.outer * self.inner // self.groups

    @property
    def run(self) -> int:
        """Neighbouring channels of each outer part that together hold all that any group reads."""
        starts = [g * self.per_group for g in range(self.groups)]
        return max((s + self.per_group - 1) // self.outer - s // self.outer + 1 for s in starts)

    def first(self, group: Any) -> Any:
        """Where a group's run starts in each outer part."""
        last = self.inner - self.run
        if isinstance(group, int):
            return min(group * self.per_group // self.outer, last)
        return tirx.min(tirx.floordiv(group * self.per_group, self.outer), last)


def pack_shuffled(filters: npt.NDArray[Any], channels: ShuffledChannels, width: int) -> npt.NDArray[Any]:
    """Pack filters ``[O, I / groups]`` as panels ``[groups * P, outer * run, NR]``.

    Zeros stand where a run reads channels of other groups.
    """
    per_group_out = filters.shape[0] // channels.groups
    packed = []
    for group in range(channels.groups):
        own = filters[group * per_group_out : (group + 1) * per_group_out]
        rows = np.zeros((channels.outer, channels.run, per_group_out), filters.dtype)
        for a in range(channels.outer):
            for j in range(channels.run):
                at = (channels.first(group) + j) * channels.outer + a - group * channels.per_group
                if 0 <= at < channels.per_group:
                    rows[a, j] = own[:, at]
        packed.append(pack_panels(rows.reshape(-1, per_group_out), width))
    return np.ascontiguousarray(np.concatenate(packed))


def shuffled_conv2d(x: Any, b: Any, channels: ShuffledChannels, strides: Sequence[int], outputs: int) -> Any:
    """TE: a 1 x 1 convolution in groups of the shuffle of NHWC ``x``; ``b`` is from pack_shuffled."""
    batch, height, width, _ = x.shape
    per_group_out, panel = outputs // channels.groups, int(b.shape[2])
    panels = -(-per_group_out // panel)
    a, j = te.reduce_axis((0, channels.outer), "a"), te.reduce_axis((0, channels.run), "j")

    def element(n: Any, h: Any, w: Any, o: Any) -> Any:
        group, inside = tirx.floordiv(o, per_group_out), tirx.floormod(o, per_group_out)
        pixel = x[n, h * strides[0], w * strides[1], a * channels.inner + channels.first(group) + j]
        weight = b[
            group * panels + tirx.floordiv(inside, panel),
            a * channels.run + j,
            tirx.floormod(inside, panel),
        ]
        return te.sum(pixel * weight, axis=[a, j])

    return te.compute(
        (batch, (height - 1) // strides[0] + 1, (width - 1) // strides[1] + 1, outputs),
        element,
        name="shuffled_conv2d",
        attrs={
            "assay.schedule": "shuffled_conv2d",
            "assay.channels": [channels.groups, channels.outer, channels.inner],
            "assay.strides": list(strides),
        },
    )


def emit_shuffled_conv2d(
    function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext
) -> Stmt:
    """Output pixels are the rows, the reduction walks the outer parts and a run of channels in each."""
    x, b = (access.source for access in loads_of(anchor.value) if not access.source.same_as(anchor.output))
    groups, outer, inner = (int(v) for v in anchor.annotations["assay.channels"])  # type: ignore[attr-defined]
    down, right = (int(v) for v in anchor.annotations["assay.strides"])  # type: ignore[attr-defined]
    channels = ShuffledChannels(groups=groups, outer=outer, inner=inner)
    batch, height, width, total = x.ty.shape
    _, out_height, out_width, outputs = anchor.spatial_extents
    per_group_out = int(outputs) // groups
    panel_width = as_int(b.ty.shape[2])
    assert panel_width is not None
    depth, panels = outer * channels.run, -(-per_group_out // panel_width)
    x_flat, x_declaration = flat_view(x)
    b_flat, b_declaration = flat_view(b)

    def pixel(row: Expr) -> tuple[Expr, Expr, Expr]:
        w, rest = floormod(row, out_width), floordiv(row, out_width)
        return floordiv(rest, out_height), floormod(rest, out_height), w

    def a_offset(group: Expr, row: Expr) -> Expr:
        n, h, w = pixel(row)
        dense = (down, right) == (1, 1)
        place = row if dense else (n * i64(height) + h * down) * i64(width) + w * right
        return place * int(total) + channels.first(i64(group))

    contraction = Contraction(
        groups=groups,
        rows=simplify(i64(batch) * i64(out_height) * i64(out_width)),
        cols=per_group_out,
        a=x_flat,
        a_offset=a_offset,
        reduction=((outer, i64(inner)),),
        depth=channels.run,
        a_row_bytes=4 * depth,
        b=b_flat,
        b_offset=lambda group, panel: (group * panels + panel) * (depth * panel_width),
        panel_width=panel_width,
        out_index=lambda group, row, col: [*pixel(row), group * per_group_out + col],
        out_flat=lambda group, row, col: row * int(outputs) + group * per_group_out + col,
    )
    return seq(x_declaration, b_declaration, emit_contraction(contraction, epilogue, context))
