"""Products of matrices, one or a batch, on a device."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import TensorLoad

from assay.compile.device_schedules.block_product import SharedProduct
from assay.compile.device_schedules.device_stages import (
    elementwise_kernel,
    finished,
    scheduled_as,
    workspaces,
)
from assay.compile.device_schedules.register_product import Product, product_kernel
from assay.compile.device_schedules.shared_panel import Operand, vector_lanes
from assay.compile.device_schedules.shared_product import shared_product_kernels
from assay.compile.device_schedules.tile_table import device_tile
from assay.compile.schedules.blocks import Block, FusedFunction
from assay.compile.schedules.epilogue import split_epilogue
from assay.compile.schedules.ir import Buffer, Expr, Stmt, as_int, i64, lanes_at, substitute, walk
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["FLOATS", "narrowed", "product_factors", "schedule_gemm", "with_stages"]

FLOATS = ("float32", "float16")
"""Dtypes of the operands of products. All are added up in float32."""


def schedule_gemm(function: FusedFunction, target: GpuTarget) -> Expr | None:
    """The function scheduled, where it has one product of matrices; else None.

    They are float32, or float16 where products go through shared memory.
    """
    tile = device_tile(target.api)
    dtypes = FLOATS if tile is None else FLOATS[:1]
    anchors = [block for block in function.blocks if block.is_reduction]
    if len(anchors) != 1 or (factors := product_factors(anchors[0], dtypes)) is None:
        return None
    anchor = anchors[0]
    if len(anchor.spatial) < 2 or len(anchor.reduction) != 1:
        return None
    if not all(a.same_as(b) for a, b in zip(anchor.indices, anchor.spatial, strict=True)):
        return None
    (step,) = anchor.reduction
    *batch, row, column = anchor.spatial
    roles = [(_uses(each, row), _uses(each, column), _uses(each, step)) for each in factors]
    if roles == [(False, True, True), (True, False, True)]:
        factors = (factors[1], factors[0])
    elif roles != [(True, False, True), (False, True, True)]:
        return None
    if as_int(anchor.spatial_extents[-2]) == 1:
        return None
    if tile is None:
        made = shared_product_kernels(_shared_product(function, anchor, *factors), target)
        return None if made is None else with_stages(function, anchor, made)
    left, right = factors
    *extents, rows, columns = anchor.spatial_extents
    epilogue, _ = split_epilogue(function, anchor)

    def at(places: Sequence[Expr], m: Expr, n: Expr, k: Expr) -> dict[Expr, Expr]:
        return {**dict(zip(batch, places, strict=True)), row: m, column: n, step: k}

    zero = i64(0)

    def read_right(places: Sequence[Expr], steps: Sequence[Expr], n: Expr, lanes: int) -> Expr | None:
        if lanes == 1:
            return substitute(right, at(places, zero, n, steps[0]))
        if right.indices[-1].same_as(column):
            indices = [substitute(i, at(places, zero, n, steps[0])) for i in right.indices]
            return tirx.BufferLoad(right.source, [*indices[:-1], tirx.Ramp(indices[-1], i64(1), lanes)])
        return None

    product = Product(
        batch=tuple(extents),
        rows=rows,
        columns=columns,
        steps=tuple(anchor.reduction_extents),
        left=lambda places, m, steps: substitute(left, at(places, m, zero, steps[0])),
        right=read_right,
        finish=lambda places, m, n, value: finished(epilogue, [*places, m, n], value),
    )
    return with_stages(function, anchor, [product_kernel(product, tile)])


def _shared_product(function: FusedFunction, anchor: Block, left: Expr, right: Expr) -> SharedProduct:
    """The product of two loads that are ``left[batch, row, step]`` and ``right[batch, step, column]``."""
    (step,) = anchor.reduction
    *batch, row, column = anchor.spatial
    *extents, rows, columns = anchor.spatial_extents
    epilogue, _ = split_epilogue(function, anchor)

    def operand(access: Expr, place: Expr) -> Operand:
        last = access.indices[-1]
        by_step = last.same_as(step)
        along = (
            anchor.reduction_extents[0] if by_step else anchor.spatial_extents[-1 if place is column else -2]
        )
        sizes = [as_int(along), as_int(access.source.ty.shape[-1])]
        dtype = str(access.ty.dtype)
        wide = vector_lanes(dtype)
        beside = (by_step or last.same_as(place)) and len(access.indices) > 1
        aligned = beside and all(size is not None and size % wide == 0 for size in sizes)

        def read(places: Sequence[Expr], at: Expr, k: Expr, lanes: int) -> Expr:
            variables = {**dict(zip(batch, places, strict=True)), place: at, step: k}
            *outer, inner = (substitute(index, variables) for index in access.indices)
            return tirx.BufferLoad(access.source, [*outer, lanes_at(inner, lanes)])

        return Operand(read=read, by_step=by_step, lanes=wide if aligned else 1, dtype=dtype)

    return SharedProduct(
        batch=tuple(extents),
        rows=rows,
        columns=columns,
        steps=anchor.reduction_extents[0],
        left=operand(left, row),
        right=operand(right, column),
        finish=lambda places, m, n, value: finished(epilogue, [*places, m, n], narrowed(value, anchor)),
    )


def narrowed(value: Expr, anchor: Block) -> Expr:
    """A sum in float32 as ``anchor`` has it."""
    dtype = str(anchor.output.ty.dtype)
    return value if dtype == "float32" else tirx.Cast(dtype, value)


def with_stages(
    function: FusedFunction,
    anchor: Block,
    kernels: Sequence[Stmt],
    *,
    own: Sequence[Buffer] = (),
    without: Sequence[Block] = (),
) -> Expr | None:
    """``kernels`` compute ``anchor`` and its epilogue; the other blocks are elementwise kernels.

    ``own``: workspaces of ``kernels``. ``without``: blocks that they compute too. None where a block that is
    left reduces.
    """
    position = function.blocks.index(anchor)
    _, after = split_epilogue(function, anchor)
    before = [block for block in function.blocks[:position] if all(block is not other for other in without)]
    after = [block for block in after if all(block is not other for other in without)]
    if any(block.is_reduction for block in (*before, *after)):
        return None
    used = [*own, *(block.output for block in (*before, *after)), *([anchor.output] if after else [])]
    body = [
        *workspaces(function, used),
        *(elementwise_kernel(block) for block in before),
        *kernels,
        *(elementwise_kernel(block) for block in after),
    ]
    return scheduled_as(function, body)


def product_factors(block: Block, dtypes: Sequence[str]) -> tuple[Expr, Expr] | None:
    """The two loads of one of ``dtypes`` whose products the block sums from 0, or None."""
    value, init = block.value, block.init
    if not isinstance(value, tirx.Add) or not isinstance(init, tirx.FloatImm) or float(init.value):
        return None
    own, product = (value.a, value.b) if isinstance(value.b, tirx.Mul) else (value.b, value.a)
    if not isinstance(own, TensorLoad) or not own.source.same_as(block.output):
        return None
    if not isinstance(product, tirx.Mul):
        return None
    loads = (product.a, product.b)
    if not all(isinstance(each, TensorLoad) for each in loads):
        return None
    return loads if str(loads[0].ty.dtype) in dtypes else None


def _uses(access: Expr, variable: Expr) -> bool:
    return any(node.same_as(variable) for index in access.indices for node in walk(index))
