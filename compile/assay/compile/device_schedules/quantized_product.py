"""Products with weights of 4, 8 or 16 bits on a device.

With few rows, as in a step of a decoder, each word of weights is read once and unpacked in registers for all
rows; the scale and the zero point of a block are applied to its sum. With more rows an ordinary product reads
weights of 16 bits, or what codes are dequantized to in memory of the call. Where the number of rows is
symbolic, all forms are there, and the grid of those that do not apply is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tvm import tirx

from assay.compile.device_schedules.block_product import SharedProduct
from assay.compile.device_schedules.device_stages import element_kernel, elementwise_kernel, finished
from assay.compile.device_schedules.few_rows import FewRows, few_rows_kernel
from assay.compile.device_schedules.gemm import with_stages
from assay.compile.device_schedules.panel_weights import PanelWeights, dequantized_numbers, panel_weights
from assay.compile.device_schedules.quantized_weights import BLOCK_PRODUCT, GATED, NORMED, PANEL, SQUARES
from assay.compile.device_schedules.register_product import Product, product_kernel
from assay.compile.device_schedules.row_norm import RowNorm, norm_kernel
from assay.compile.device_schedules.row_tile import RowTile, row_tile
from assay.compile.device_schedules.shared_panel import LANES, Operand
from assay.compile.device_schedules.shared_product import shared_product_kernels
from assay.compile.device_schedules.threads import launched_if
from assay.compile.device_schedules.tile_table import device_tile
from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.epilogue import split_epilogue
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    i64,
    if_then,
    lanes_at,
    load,
    simplify,
    store,
    substitute,
    unflatten,
)
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["schedule_quantized_product"]


def schedule_quantized_product(function: FusedFunction, target: GpuTarget) -> Expr | None:
    """The function scheduled, where it is a product of ``quantized_weights``; else None."""
    anchor = function.anchor()
    if anchor is None or anchor.annotations["assay.schedule"] != BLOCK_PRODUCT:
        return None
    dequantized = next(block for block in function.blocks if block.name == "dequantized")
    weights = panel_weights(anchor, dequantized)
    source = next(each for each in loads_of(anchor.value) if _is_left(each, anchor, dequantized))
    *leading, _ = anchor.spatial_extents
    rows = i64(1)
    for extent in leading:
        rows = simplify(rows * i64(extent))
    epilogue, _ = split_epilogue(function, anchor)

    def finish(row: Expr, column: Expr, value: Expr) -> Stmt:
        return finished(epilogue, [*unflatten(row, leading), column], value)

    def elements(buffer: Buffer) -> Callable[[Expr, Expr, int], Expr]:
        return lambda row, step, lanes: load(buffer, *unflatten(row, leading), lanes_at(step, lanes))

    product = FewRows(rows=rows, weights=weights, left=elements(source.source), finish=finish)
    few, before, blocks = product, list[Stmt](), [dequantized]
    normed = next((block for block in function.blocks if block.output.same_as(source.source)), None)
    if normed is not None and normed.name == NORMED:
        squares = next(block for block in function.blocks if block.name == SQUARES)
        given, norm = _norm(normed, squares, anchor, weights.steps)
        few = replace(product, left=elements(given), norm=norm)

        def put(row: Expr, step: Expr, value: Expr) -> Stmt:
            return store(normed.output, value, *unflatten(row, leading), step)

        before = [norm_kernel(rows, norm, lambda row, step: elements(given)(row, step, 1), put)]
        blocks += [squares, normed]
    gated = next((block for block in function.blocks if block.name == GATED), None)
    behind = list[Stmt]()
    if gated is not None:
        few, behind = _with_gate(few, gated, anchor), [elementwise_kernel(gated)]
        blocks.append(gated)
    made = _kernels(few, product, before, behind, weights, target)
    if made is None:
        return None
    kernels, own = made
    if len(kernels) > 1:
        own += [normed.output] if before and normed is not None else []
        own += [anchor.output] if behind else []
    return with_stages(function, anchor, kernels, own=own, without=blocks)


def _with_gate(product: FewRows, gated: Block, anchor: Block) -> FewRows:
    """``product`` with the block of a gate computed in the same kernel."""

    def gate(first: Expr, second: Expr) -> Expr:
        def replace_load(node: Expr) -> Expr | None:
            if not node.source.same_as(anchor.output):
                return None
            return first if node.indices[-1].same_as(gated.spatial[-1]) else second

        return substitute(gated.value, {}, replace_load)

    def finish(row: Expr, column: Expr, value: Expr) -> Stmt:
        return store(gated.output, value, *unflatten(row, anchor.spatial_extents[:-1]), column)

    return replace(product, gate=gate, finish=finish)


def _norm(normed: Block, squares: Block, anchor: Block, steps: int) -> tuple[Buffer, RowNorm]:
    """What a norm of rows is of, and how it is computed."""
    given = next(each.source for each in loads_of(squares.value) if not each.source.same_as(squares.output))
    others = (given, squares.output)
    gain = next(
        each.source
        for each in loads_of(normed.value)
        if not any(each.source.same_as(other) for other in others)
    )
    epsilon = float(str(anchor.annotations["assay.epsilon"]))

    def gains(step: Expr, lanes: int) -> Expr:
        return load(gain, lanes_at(step, lanes))

    return given, RowNorm(steps=steps, epsilon=epsilon, gain=gains)


def _is_left(access: Expr, anchor: Block, dequantized: Block) -> bool:
    return not any(access.source.same_as(other) for other in (anchor.output, dequantized.output))


def _kernels(
    few_rows: FewRows,
    product: FewRows,
    before: Sequence[Stmt],
    behind: Sequence[Stmt],
    weights: PanelWeights,
    target: GpuTarget,
) -> tuple[list[Stmt], list[Buffer]] | None:
    """The kernels for the number of rows that there is, or for all numbers, and their workspaces.

    ``few_rows``: the whole; ``product``: between the kernels ``before`` and ``behind``, where rows are many.
    """
    tile, count = row_tile(target.api), as_int(product.rows)
    if count is not None and count <= tile.most_rows:
        return [few_rows_kernel(few_rows, tile)], []
    made = _many_rows(product, weights, target, tile)
    if made is None:
        return None
    many, own = [*before, *made[0], *behind], made[1]
    if count is not None:
        return many, own
    one, few = product.rows <= 1, tirx.And(product.rows > 1, product.rows <= tile.most_rows)
    kernels = [
        launched_if(one, few_rows_kernel(few_rows, replace(tile, rows=1))),
        launched_if(few, few_rows_kernel(few_rows, tile)),
        *(launched_if(product.rows > tile.most_rows, kernel) for kernel in many),
    ]
    return kernels, own


def _many_rows(
    product: FewRows, weights: PanelWeights, target: GpuTarget, rows: RowTile
) -> tuple[list[Stmt], list[Buffer]] | None:
    """An ordinary product with the numbers that the weights are; None where the target has no tiles."""
    panels, steps, lanes = -(-weights.outputs // PANEL), i64(weights.steps), rows.left_lanes
    tile = device_tile(target.api)
    # Reads of single elements beside those of vectors would make all of them single ones.
    in_vectors = tile is None or tile.lanes > 1
    numbers = weights.in_place() if in_vectors else None
    numbers = numbers or dequantized_numbers(weights, rows)
    kernels, own, read = [*numbers.kernels], [*numbers.own], product.left
    if lanes > 1 and weights.steps % lanes == 0:
        # The same of the left operand.
        left = tirx.decl_buffer([product.rows, steps], "float32", name="left")

        def copied(index: Sequence[Expr]) -> Stmt:
            step = simplify(index[1] * lanes)
            return store(left, product.left(index[0], step, lanes), index[0], lanes_at(step, lanes))

        kernels.append(element_kernel([product.rows, i64(weights.steps // lanes)], copied))
        own.append(left)
        read = lambda row, step, lanes: load(left, row, lanes_at(step, lanes))  # noqa: E731
    finish = _guarded(product.finish, weights)
    if tile is not None:
        form = Product(
            batch=(),
            rows=product.rows,
            columns=i64(panels * PANEL),
            steps=(steps,),
            left=lambda batch, row, steps: read(row, steps[0], 1),
            right=lambda batch, steps, column, lanes: numbers.read(steps[0], column, lanes),
            finish=finish,
        )
        return [*kernels, product_kernel(form, tile)], own
    panel = SharedProduct(
        batch=(),
        rows=product.rows,
        columns=i64(panels * PANEL),
        steps=steps,
        left=Operand(
            read=lambda batch, row, step, lanes: read(row, step, lanes),
            by_step=True,
            lanes=LANES if weights.steps % LANES == 0 else 1,
        ),
        right=Operand(
            read=lambda batch, column, step, lanes: numbers.read(step, column, lanes),
            by_step=False,
            lanes=LANES,
        ),
        finish=finish,
    )
    made = shared_product_kernels(panel, target)
    return None if made is None else ([*kernels, *made], own)


def _guarded(
    finish: Callable[[Expr, Expr, Expr], Stmt], weights: PanelWeights
) -> Callable[[Sequence[Expr], Expr, Expr, Expr], Stmt]:
    """``finish`` without the outputs that only fill the last panel."""

    def done(batch: Sequence[Expr], row: Expr, column: Expr, value: Expr) -> Stmt:
        stored = finish(row, column, value)
        return stored if weights.outputs % PANEL == 0 else if_then(column < weights.outputs, stored)

    return done
