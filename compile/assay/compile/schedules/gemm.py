"""GEMM with packed constant weights, and batched GEMM whose B is packed on the fly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from assay.compile.schedules.amx import emit_tiles, fits_tiles
from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction, StepOrder
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.half import widened
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    ceildiv,
    const_like,
    flat_view,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    parallel,
    seq,
    simplify,
    store,
    unflatten,
)
from assay.compile.schedules.microkernel import emit_contraction
from assay.compile.schedules.multiply_add import MultiplyAdd, element_bytes, form_name, form_named
from assay.compile.schedules.tiles import choose_panel_width

__all__ = [
    "batched_matmul",
    "emit_batched_matmul",
    "emit_packed_matmul",
    "pack_panels",
    "packed_matmul",
    "stored_matmul",
]


def pack_panels(weights: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Pack B ``[K, N]`` as panels ``[ceil(N / NR), K, NR]``, the last one padded with zeros."""
    depth, cols = weights.shape
    panels = -(-cols // width)
    padded = np.zeros((depth, panels * width), weights.dtype)
    padded[:, :cols] = weights
    return np.ascontiguousarray(padded.reshape(depth, panels, width).transpose(1, 0, 2))


def packed_matmul(a: Any, b: Any, cols: int) -> Any:
    """TE: A ``[..., M, K]`` times packed B ``[P, K, NR]`` gives ``[..., M, N]``."""
    width = int(b.shape[2])
    k = te.reduce_axis((0, a.shape[-1]), "k")
    return te.compute(
        (*a.shape[:-1], cols),
        lambda *i: te.sum(
            a[(*i[:-1], k)] * b[tirx.floordiv(i[-1], width), k, tirx.floormod(i[-1], width)], axis=k
        ),
        name="matmul",
        attrs={"assay.schedule": "packed_matmul"},
    )


def stored_matmul(a: Any, b: Any, *, cols: int, dtype: str, form: MultiplyAdd) -> Any:
    """TE: ``packed_matmul`` with B as the bits, uint16, of ``dtype``: float16 or bfloat16."""
    width = int(b.shape[2])
    k = te.reduce_axis((0, a.shape[-1]), "k")

    def weight(n: Any) -> Any:
        bits = b[tirx.floordiv(n, width), k, tirx.floormod(n, width)]
        return widened(bits, dtype, 1, f16c=False)

    return te.compute(
        (*a.shape[:-1], cols),
        lambda *i: te.sum(a[(*i[:-1], k)] * weight(i[-1]), axis=k),
        name="stored_matmul",
        attrs={
            "assay.schedule": "packed_matmul",
            "assay.form": form_name(form),
            "assay.operations": 2 * int(b.shape[1]),
        },
    )


def batched_matmul(a: Any, b: Any, transpose_b: bool) -> Any:
    """TE: A ``[..., M, K]`` times B ``[..., K, N]`` (or ``[..., N, K]``), same leading dimensions.

    A single row is left to the reductions, which read B where it is: packing it would be all the work.
    """
    k = te.reduce_axis((0, a.shape[-1]), "k")
    cols = b.shape[-2] if transpose_b else b.shape[-1]
    return te.compute(
        (*a.shape[:-1], cols),
        lambda *i: te.sum(
            a[(*i[:-1], k)] * (b[(*i[:-2], i[-1], k)] if transpose_b else b[(*i[:-2], k, i[-1])]), axis=k
        ),
        name="matmul",
        attrs=None
        if as_int(a.shape[-2]) == 1
        else {"assay.schedule": "batched_matmul", "assay.transpose_b": int(transpose_b)},
    )


def _product(extents: Any) -> Expr:
    size = i64(1)
    for extent in extents:
        size = size * i64(extent)
    return simplify(size)


def packed_operands(block: Block) -> tuple[Buffer, Buffer, Buffer | None]:
    """A, packed B, and the offsets of its steps where these have an order of their own."""
    found: list[Buffer] = []
    for access in loads_of(block.value):
        known = [block.output, *found]
        if not any(access.source.same_as(buffer) for buffer in known):
            found.append(access.source)
    if len(found) == 2:
        return found[0], found[1], None
    indices = [index for access in loads_of(block.value) for index in access.indices]
    offsets = next(inner.source for index in indices for inner in loads_of(index))
    a, b = (buffer for buffer in found if not buffer.same_as(offsets))
    return a, b, offsets


def step_order(block: Block, offsets: Buffer | None) -> tuple[StepOrder | None, list[Stmt]]:
    """The order of the steps that a block names, if any, and what declares its table."""
    if offsets is None:
        return None, []
    numbers = [int(number) for number in block.annotations["assay.sizes"]]  # type: ignore[attr-defined]
    flat, declaration = flat_view(offsets)
    order = StepOrder(
        offsets=flat,
        first=lambda group, panel: panel * i64(offsets.ty.shape[1]),
        sizes=tuple(zip(numbers[::2], numbers[1::2], strict=True)),
        unit=int(block.annotations["assay.unit"]),  # type: ignore[call-overload]
    )
    return order, [declaration]


def _operands(block: Block) -> tuple[Buffer, Buffer]:
    a, b = (access.source for access in loads_of(block.value) if not access.source.same_as(block.output))
    return a, b


def emit_packed_matmul(
    function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext
) -> Stmt:
    """Every leading dimension of A counts as rows, since one B serves them all."""
    a, b, offsets = packed_operands(anchor)
    order, more = step_order(anchor, offsets)
    leading, depth = list(a.ty.shape)[:-1], a.ty.shape[-1]
    width = as_int(b.ty.shape[2])
    assert width is not None
    form = form_named(anchor.annotations.get("assay.form"))
    a_flat, a_declaration = flat_view(a)
    b_flat, b_declaration = flat_view(b)
    contraction = Contraction(
        groups=1,
        rows=_product(leading),
        cols=anchor.spatial_extents[-1],
        a=a_flat,
        a_offset=lambda group, row: row * i64(depth),
        reduction=(),
        depth=depth,
        a_row_bytes=element_bytes(a) * context.expected(depth),
        b=b_flat,
        b_offset=lambda group, panel: panel * (i64(b.ty.shape[1]) * (width * form.depth)),
        panel_width=width,
        out_index=lambda group, row, col: [*unflatten(row, leading), col],
        out_flat=lambda group, row, col: row * i64(anchor.spatial_extents[-1]) + col,
        multiply_add=form,
        order=order,
    )
    emit = emit_tiles if fits_tiles(contraction, form, context) else emit_contraction
    return seq(more, a_declaration, b_declaration, emit(contraction, epilogue, context))


def emit_batched_matmul(
    function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext
) -> Stmt:
    """Each B is packed into panels first: that costs 1/M of the work, and folds a transposition away."""
    a, b = _operands(anchor)
    transpose_b = bool(anchor.annotations["assay.transpose_b"])
    leading = list(a.ty.shape)[:-2]
    rows, depth, cols = a.ty.shape[-2], a.ty.shape[-1], anchor.spatial_extents[-1]
    width = context.choice.panel_width or choose_panel_width(
        context.unit, context.expected(rows), context.expected(cols)
    )
    groups = _product(leading)
    packed, allocation = allocate([groups * ceildiv(cols, width) * i64(depth) * width], "float32", "b_packed")
    a_flat, a_declaration = flat_view(a)
    b_flat, b_declaration = flat_view(b)
    contraction = Contraction(
        groups=groups,
        rows=rows,
        cols=cols,
        a=a_flat,
        a_offset=lambda group, row: (group * i64(rows) + row) * i64(depth),
        reduction=(),
        depth=depth,
        a_row_bytes=4 * context.expected(depth),
        b=packed,
        b_offset=lambda group, panel: (group * ceildiv(cols, width) + panel) * (i64(depth) * width),
        panel_width=width,
        out_index=lambda group, row, col: [*unflatten(group, leading), row, col],
        out_flat=lambda group, row, col: (group * i64(rows) + row) * i64(cols) + col,
    )
    pack = _emit_packing(b_flat, packed, groups, depth, cols, width, transpose_b, context)
    return seq(
        allocation, a_declaration, b_declaration, pack, emit_contraction(contraction, epilogue, context)
    )


def _emit_packing(
    b: Buffer, packed: Buffer, groups: Expr, depth: Expr, cols: Expr, width: int, transpose_b: bool,
    context: ScheduleContext,
) -> Stmt:  # fmt: skip
    """Copy each B ``[K, N]`` (or ``[N, K]``) into zero-padded panels ``[P, K, NR]``."""
    panels = simplify(tirx.max(ceildiv(cols, width), i64(1)))
    lanes = min(context.unit.lanes(), width)

    def task(t: Expr) -> Stmt:
        group, more = bind("group", floordiv(t, panels))
        panel, rest = bind("panel", floormod(t, panels))
        source = group * (i64(depth) * i64(cols))
        target, last = bind("target", t * (i64(depth) * width))

        def row(k: Expr) -> Stmt:
            def copy(at: Expr) -> Expr:
                where = (
                    (panel * width + at) * i64(depth) + k
                    if transpose_b
                    else k * i64(cols) + panel * width + at
                )
                return load(b, source + where)

            def whole() -> Stmt:
                if transpose_b:
                    return seq(*(store(packed, copy(i64(j)), target + k * width + j) for j in range(width)))
                return seq(
                    *(
                        store(
                            packed,
                            load(b, lanes_at(source + k * i64(cols) + panel * width + j, lanes)),
                            lanes_at(target + k * width + j, lanes),
                        )
                        for j in range(0, width, lanes)
                    )
                )

            def part() -> Stmt:
                zero = const_like(0.0, "float32")
                return loop(
                    width,
                    lambda j: if_then(
                        panel * width + j < i64(cols),
                        store(packed, copy(j), target + k * width + j),
                        store(packed, zero, target + k * width + j),
                    ),
                    "column",
                )

            if as_int(floormod(cols, width)) == 0:
                return whole()
            return if_then((panel + 1) * width <= i64(cols), whole(), part())

        return seq(more, rest, last, loop(depth, row, "k"))

    elements = context.expected(groups) * context.expected(depth) * context.expected(cols)
    return parallel(simplify(groups * panels), task, "task", serial=context.is_small(elements))
