"""Convolutions of two dimensions (NCHW) on a device, as sums of products of rows of filters and of pixels.

A first kernel writes the padded input as ``steps`` times ``steps`` planes of every steps-th row and column.
For each tap of the filter the pixels of consecutive outputs then lie beside each other, also from one row to
the next. The columns of the product go through whole rows of a plane; what falls behind the end of an output
row is dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import TensorLoad

from assay.compile.device_schedules.block_product import SharedProduct
from assay.compile.device_schedules.device_stages import element_kernel, finished
from assay.compile.device_schedules.gemm import FLOATS, narrowed, product_factors, with_stages
from assay.compile.device_schedules.register_product import Product, product_kernel
from assay.compile.device_schedules.shared_panel import Operand, vector_lanes
from assay.compile.device_schedules.shared_product import shared_product_kernels
from assay.compile.device_schedules.tile_table import device_tile
from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.epilogue import split_epilogue
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    same_shape,
    simplify,
    store,
    substitute,
)
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["schedule_conv2d"]

# Fewer outputs of a group than this leave most rows of a tile in shared memory empty.
_FEW_OUTPUTS = 4


@dataclass(frozen=True, kw_only=True)
class _Conv:
    """``out[n, o, y, x] += data[n, c, y * steps + ky * dilation, ...] * weight[o, c - first, ky, kx]``."""

    data: Buffer
    weight: Buffer
    batch: Expr
    channels: int
    height: int
    width: int
    outputs: int
    groups: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    steps: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def plane(self) -> tuple[int, int]:
        """Rows and columns of a plane of every steps-th row and column."""
        return -(-self.height // self.steps[0]), -(-self.width // self.steps[1])

    @property
    def is_pointwise(self) -> bool:
        """Whether each output is of one pixel of the same place."""
        return self.kernel == (1, 1) and self.steps == (1, 1)


def schedule_conv2d(function: FusedFunction, target: GpuTarget) -> Expr | None:
    """The function scheduled, where it has one convolution of float32 of a constant size; else None.

    It may be of float16 where products go through shared memory.
    """
    tile = device_tile(target.api)
    anchors = [block for block in function.blocks if block.is_reduction]
    if len(anchors) != 1 or (conv := _read(anchors[0], FLOATS if tile is None else FLOATS[:1])) is None:
        return None
    anchor = anchors[0]
    producer = next((block for block in function.blocks if block.output.same_as(conv.data)), None)
    before = () if producer is None or not _inlines(function, producer) else (producer,)
    if tile is None:
        if conv.outputs // conv.groups < _FEW_OUTPUTS:
            return None
        made = shared_product_kernels(_shared_product(function, anchor, conv, before), target)
        return None if made is None else with_stages(function, anchor, made, without=before)
    if conv.is_pointwise and (source := _source(conv, before)) is not None:
        product = _product(function, anchor, conv, source, conv.width, overruns=False)
        return with_stages(function, anchor, [product_kernel(product, tile)], without=before)
    rows, columns = conv.plane
    count = conv.batch * conv.channels * conv.steps[0] * conv.steps[1] * rows * columns
    # A vector that starts at the last pixel may end behind the last plane.
    slack = tile.lanes * tile.vectors * tile.column_threads * tile.row_threads
    slack += sum((k - 1) * d for k, d in zip(conv.kernel, conv.dilation, strict=True)) + columns
    planes = tirx.decl_buffer([simplify(count + slack)], "float32", name="planes")
    product = _product(function, anchor, conv, planes, columns, overruns=True)
    kernels = [_split(conv, planes, before), product_kernel(product, tile)]
    return with_stages(function, anchor, kernels, own=[planes], without=before)


def _read(block: Block, dtypes: Sequence[str]) -> _Conv | None:
    """The convolution that a block is, if it is one."""
    factors = product_factors(block, dtypes)
    if factors is None or len(block.spatial) != 4 or len(block.reduction) != 3:
        return None
    if not all(a.same_as(b) for a, b in zip(block.indices, block.spatial, strict=True)):
        return None
    filters = [len(each.indices) == 4 and each.indices[0].same_as(block.spatial[1]) for each in factors]
    if sum(filters) != 1:
        return None
    data, weight = factors if filters[1] else factors[::-1]
    taps = zip(weight.indices[1:], block.reduction, block.reduction_extents, strict=True)
    if len(data.indices) != 4 or not all(_is_at(index, var, extent) for index, var, extent in taps):
        return None
    numbers = [as_int(n) for n in (*data.source.ty.shape[1:], *weight.source.ty.shape)]
    numbers += [as_int(n) for n in block.spatial_extents[1:]]
    strides = [_strides(block, data.indices, axis) for axis in (2, 3)]
    if None in numbers or None in strides:
        return None
    channels, height, width, outputs, inputs, *rest = (int(n or 0) for n in numbers)
    groups = channels // inputs
    n, o = block.spatial[:2]
    expected = (
        floordiv(o, outputs // groups) * inputs + block.reduction[0] if groups > 1 else block.reduction[0]
    )
    if groups * inputs != channels or outputs % groups:
        return None
    ranges = dict(zip((o, block.reduction[0]), (outputs, inputs), strict=True))
    if not data.indices[0].same_as(n) or not _equal(data.indices[1], expected, ranges):
        return None
    (down, tall), (across, wide) = (each for each in strides if each is not None)
    return _Conv(
        data=data.source,
        weight=weight.source,
        batch=block.spatial_extents[0],
        channels=channels,
        height=height,
        width=width,
        outputs=outputs,
        groups=groups,
        kernel=(rest[0], rest[1]),
        out_height=rest[3],
        out_width=rest[4],
        steps=(down, across),
        dilation=(tall, wide),
    )


def _is_at(index: Expr, variable: Expr, extent: Expr) -> bool:
    return index.same_as(variable) or (as_int(extent) == 1 and as_int(index) == 0)


def _strides(block: Block, indices: Sequence[Expr], axis: int) -> tuple[int, int] | None:
    """The steps of an output and of a tap in a dimension of the data."""
    out, tap, index = block.spatial[axis], block.reduction[axis - 1], indices[axis]
    at = [as_int(substitute(index, {out: i64(y), tap: i64(k)})) for y, k in ((0, 0), (1, 0), (0, 1))]
    if at[0] != 0 or at[1] is None or at[2] is None or at[1] < 1:
        return None
    # A dimension of one tap, or of one output, may lack a variable: then its step matters to nobody.
    step, dilation = at[1], max(1, at[2])
    ranges = {
        out: as_int(block.spatial_extents[axis]) or 0,
        tap: as_int(block.reduction_extents[axis - 1]) or 0,
    }
    return (step, dilation) if _equal(index, out * step + tap * dilation, ranges) else None


def _equal(a: Expr, b: Expr, ranges: Mapping[Expr, int]) -> bool:
    """Whether two indices are the same for all values of their variables below ``ranges``."""
    if same_shape([a], [b]):
        return True
    variables = list(ranges)
    values = itertools.product(*(sorted({0, n // 2, n - 1, *range(min(n, 64))}) for n in ranges.values()))
    return all(
        as_int(substitute(a - b, dict(zip(variables, map(i64, value), strict=True)))) == 0 for value in values
    )


def _inlines(function: FusedFunction, producer: Block) -> bool:
    """Whether a block can be computed where the convolution reads it: nothing else does."""
    plain = all(a.same_as(b) for a, b in zip(producer.indices, producer.spatial, strict=True))
    readers = [
        b for b in function.blocks if any(a.source.same_as(producer.output) for a in loads_of(b.value))
    ]
    kept = function.is_param(producer.output)
    return plain and not producer.is_reduction and len(readers) == 1 and not kept


def _source(conv: _Conv, before: Sequence[Block]) -> Buffer | None:
    """The data of a convolution as it lies in memory; None where ``before`` computes it."""
    if not before:
        return conv.data
    value, spatial = before[0].value, before[0].spatial
    if not isinstance(value, TensorLoad) or not same_shape(value.source.ty.shape, conv.data.ty.shape):
        return None
    return value.source if all(a.same_as(b) for a, b in zip(value.indices, spatial, strict=True)) else None


def _split(conv: _Conv, planes: Buffer, before: Sequence[Block]) -> Stmt:
    """Write ``planes``: [batch, channel, first row, first column, row, column], flat."""
    rows, columns = conv.plane
    extents = [conv.batch, *(i64(n) for n in (conv.channels, *conv.steps, rows, columns))]
    even = conv.height == rows * conv.steps[0] and conv.width == columns * conv.steps[1]

    def element(index: Sequence[Expr]) -> Stmt:
        n, c, down, across, y, x = index
        place = i64(0)
        for each, extent in zip(index, extents, strict=True):
            place = place * extent + each
        row, column = simplify(y * conv.steps[0] + down), simplify(x * conv.steps[1] + across)
        value = load(conv.data, n, c, row, column)
        if before:
            variables = dict(zip(before[0].spatial, (n, c, row, column), strict=True))
            value = substitute(before[0].value, variables)
        if not even:
            inside = tirx.And(row < conv.height, column < conv.width)
            value = tirx.if_then_else(inside, value, tirx.const(0.0, "float32"))
        return store(planes, value, simplify(place))

    return element_kernel(extents, element)


def _product(
    function: FusedFunction, anchor: Block, conv: _Conv, data: Buffer, columns: int, *, overruns: bool
) -> Product:
    """The product of the filters of a group and its pixels; ``data`` is flat or, for one tap, as it was."""
    epilogue, _ = split_epilogue(function, anchor)
    inputs, outputs = conv.channels // conv.groups, conv.outputs // conv.groups
    rows = conv.plane[0]
    down, across = conv.steps

    def filters(batch: Sequence[Expr], row: Expr, steps: Sequence[Expr]) -> Expr:
        return load(conv.weight, simplify(batch[1] * outputs + row), *steps)

    def pixels(batch: Sequence[Expr], steps: Sequence[Expr], column: Expr, lanes: int) -> Expr:
        (n, group), (c, ky, kx) = batch, steps
        channel = simplify(group * inputs + c)
        if not overruns:
            # Within a channel, rows follow each other.
            return load(data, n, channel, 0, lanes_at(column, lanes))
        y, x = ky * conv.dilation[0], kx * conv.dilation[1]
        plane = (n * conv.channels + channel) * down + floormod(y, down)
        plane = plane * across + floormod(x, across)
        place = (plane * rows + floordiv(y, down)) * columns + floordiv(x, across) + column
        return load(data, lanes_at(simplify(place), lanes))

    def finish(batch: Sequence[Expr], row: Expr, column: Expr, value: Expr) -> Stmt:
        y, x = floordiv(column, columns), floormod(column, columns)
        done = finished(epilogue, [batch[0], simplify(batch[1] * outputs + row), y, x], value)
        return done if columns == conv.out_width else if_then(x < conv.out_width, done)

    return Product(
        batch=(conv.batch, i64(conv.groups)),
        rows=i64(outputs),
        columns=i64((conv.out_height - 1) * columns + conv.out_width),
        steps=tuple(i64(n) for n in (inputs, *conv.kernel)),
        left=filters,
        right=pixels,
        finish=finish,
        right_overruns=overruns,
    )


def _shared_product(
    function: FusedFunction, anchor: Block, conv: _Conv, before: Sequence[Block]
) -> SharedProduct:
    """The product of the filters of a group and its pixels, which are gathered as they are read.

    (Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014.)
    """
    epilogue, _ = split_epilogue(function, anchor)
    inputs, outputs = conv.channels // conv.groups, conv.outputs // conv.groups
    tall, wide = conv.kernel
    steps, columns = inputs * tall * wide, conv.out_height * conv.out_width
    source = _source(conv, before) if conv.is_pointwise else None

    def filters(batch: Sequence[Expr], row: Expr, step: Expr, lanes: int) -> Expr:
        # Taps follow each other as steps do.
        return load(conv.weight, simplify(batch[1] * outputs + row), 0, 0, lanes_at(step, lanes))

    def pixels(batch: Sequence[Expr], column: Expr, step: Expr, lanes: int) -> Expr:
        n, group = batch
        channel = simplify(group * inputs + floordiv(step, tall * wide))
        if source is not None:
            return load(source, n, channel, 0, lanes_at(column, lanes))
        down = floormod(floordiv(step, wide), tall) * conv.dilation[0]
        across = floormod(step, wide) * conv.dilation[1]
        y = simplify(floordiv(column, conv.out_width) * conv.steps[0] + down)
        x = simplify(floormod(column, conv.out_width) * conv.steps[1] + across)
        if not before:
            return load(conv.data, n, channel, y, x)
        return substitute(before[0].value, dict(zip(before[0].spatial, (n, channel, y, x), strict=True)))

    def finish(batch: Sequence[Expr], row: Expr, column: Expr, value: Expr) -> Stmt:
        y, x = floordiv(column, conv.out_width), floormod(column, conv.out_width)
        place = [batch[0], simplify(batch[1] * outputs + row), y, x]
        return finished(epilogue, place, narrowed(value, anchor))

    dtype = str(conv.weight.ty.dtype)
    most = vector_lanes(dtype)
    return SharedProduct(
        batch=(conv.batch, i64(conv.groups)),
        rows=i64(outputs),
        columns=i64(columns),
        steps=i64(steps),
        left=Operand(read=filters, by_step=True, lanes=most if steps % most == 0 else 1, dtype=dtype),
        right=Operand(
            read=pixels,
            by_step=False,
            lanes=most if source is not None and columns % most == 0 else 1,
            dtype=dtype,
        ),
        finish=finish,
    )
