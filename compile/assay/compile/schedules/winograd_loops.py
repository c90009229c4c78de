"""The loops of Winograd's convolution: blocks of tiles transformed, multiplied and transformed back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.gemm import packed_operands
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    broadcast,
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
    vector_dtype,
)
from assay.compile.schedules.math import with_registers
from assay.compile.schedules.microkernel import emit_rows_of_panel
from assay.compile.schedules.multiply_add import FLOAT32, MultiplyAdd, element_bytes, form_named
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.winograd_matrices import (
    Filtering,
    combine,
    filtering,
    integer_filtering,
    keeper,
)

__all__ = ["emit_winograd_conv2d"]

# Matrices of different positions would else share the few cache lines of one set: bytes between them.
_SKEW_BYTES = 64
# Fewer blocks than this leave a thread waiting for the others.
_MIN_BLOCKS = 8


def emit_winograd_conv2d(
    function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext
) -> Stmt:
    """Threads share blocks of tiles, or, where there are few, the output channels of one block."""
    x, b, _ = packed_operands(anchor)
    top, left, _, _ = (int(v) for v in anchor.annotations["assay.padding"])  # type: ignore[attr-defined]
    x_flat, x_declaration = flat_view(x)
    b_flat, b_declaration = flat_view(b)
    form = form_named(anchor.annotations.get("assay.form"))
    outputs = int(anchor.annotations["assay.outputs"])  # type: ignore[call-overload]
    emitter = _Emitter(
        matrices=filtering(outputs) if form is FLOAT32 else integer_filtering(outputs),
        form=form,
        zero=int(anchor.annotations.get("assay.zero", 0)),  # type: ignore[call-overload]
        tiles=int(anchor.annotations["assay.tiles"]),  # type: ignore[call-overload]
        origin=(top, left),
        x=x_flat,
        x_shape=tuple(x.ty.shape),
        b=b_flat,
        b_shape=tuple(as_int(extent) or 1 for extent in b.ty.shape),
        out_shape=tuple(anchor.spatial_extents),
        function=function,
        epilogue=epilogue,
        context=context,
    )
    return seq(x_declaration, b_declaration, epilogue.declare_views(), emitter.emit())


@dataclass(frozen=True, kw_only=True)
class _Emitter:
    """``origin``: rows and columns of padding before the input. Shapes: x NHWC, b as packed, out NHWC.

    ``form`` multiplies; ``zero``: what is taken off the elements of x, and is worth 0.
    """

    matrices: Filtering
    form: MultiplyAdd
    zero: int
    tiles: int
    origin: tuple[int, int]
    x: Buffer
    x_shape: tuple[Expr, ...]
    b: Buffer
    b_shape: tuple[int, ...]
    out_shape: tuple[Expr, ...]
    function: FusedFunction
    epilogue: Epilogue
    context: ScheduleContext

    @property
    def _channels(self) -> tuple[int, int]:
        return as_int(self.x_shape[3]) or 1, as_int(self.out_shape[3]) or 1

    @property
    def _group_columns(self) -> int:
        """Columns of the panels multiplied together."""
        return self.b_shape[2] * self.b_shape[4]

    @property
    def _dtype(self) -> str:
        """The type of the transformed input, that of the transformed filters."""
        return str(self.b.ty.dtype)

    @property
    def _data_stride(self) -> int:
        """From one position to the next in the transformed input ``[n * n, tiles, I]``."""
        return self.tiles * self._channels[0] + _SKEW_BYTES // element_bytes(self.b)

    @property
    def _product_stride(self) -> int:
        """From one position to the next in the products ``[n * n, tiles, columns]``."""
        return self.tiles * self._group_columns + _SKEW_BYTES // 4

    def emit(self) -> Stmt:
        """All tiles of all images."""
        m = self.matrices.outputs
        batch, height, width, _ = self.out_shape
        down, across = ceildiv(height, m), ceildiv(width, m)
        total = simplify(i64(batch) * down * across)
        blocks = ceildiv(total, self.tiles)
        groups = self.b_shape[0]

        def tile(number: Expr) -> tuple[tuple[Expr, Expr, Expr], list[Stmt]]:
            image, first = bind("image", floordiv(number, down * across))
            row, second = bind("row", floormod(floordiv(number, across), down) * m)
            column, third = bind("column", floormod(number, across) * m)
            return (image, row, column), [*first, *second, *third]

        def transformed(block: Expr, t: Expr, body: Callable[[tuple[Expr, Expr, Expr]], Stmt]) -> Stmt:
            place, bindings = tile(block * self.tiles + t)
            inside = seq(bindings, body(place))
            return inside if exact else if_then(block * self.tiles + t < total, inside)

        exact = as_int(floormod(total, self.tiles)) == 0
        data_size = self._data_stride * self.matrices.inputs**2
        product_size = self._product_stride * self.matrices.inputs**2

        def load_tiles(block: Expr, data: Buffer, share: Callable[..., Stmt]) -> Stmt:
            return share(
                self.tiles, lambda t: transformed(block, t, lambda at: self._load(at, t, data)), "tile"
            )

        def multiply(block: Expr, data: Buffer, group: Expr) -> Stmt:
            products, allocation = allocate([product_size], self.form.accumulator, "products")
            back = loop(
                self.tiles,
                lambda t: transformed(block, t, lambda at: self._store(at, t, group, products)),
                "tile",
            )
            return seq(allocation, self._multiply(data, products, group), back)

        def alone(block: Expr) -> Stmt:
            data, allocation = allocate([data_size], self._dtype, "data")
            work = loop(groups, lambda group: multiply(block, data, group), "group")
            return seq(allocation, load_tiles(block, data, loop), work)

        products = self.matrices.inputs**2 * self._channels[0] * self._channels[1]
        serial = self.context.is_small(self.context.expected(total) * products // 4)
        if self.context.expected(blocks) >= _MIN_BLOCKS or serial:
            return parallel(blocks, alone, "block", serial=serial)
        data, allocation = allocate([data_size], self._dtype, "data")
        together = loop(
            blocks,
            lambda block: seq(
                load_tiles(block, data, parallel),
                parallel(groups, lambda group: multiply(block, data, group), "group"),
            ),
            "block",
        )
        return seq(allocation, together)

    def _load(self, place: tuple[Expr, Expr, Expr], t: Expr, data: Buffer) -> Stmt:
        """Transform the inputs of one tile: ``B^T d B`` for each channel, zero outside the image."""
        n, channels = self.matrices.inputs, self._channels[0]
        image, row, column = place
        _, height, width, _ = self.x_shape
        top, first = bind("top", row - self.origin[0])
        left, second = bind("left", column - self.origin[1])
        corner, third = bind("corner", ((image * i64(height) + top) * i64(width) + left) * channels)
        inside = tirx.all(top >= 0, top + n <= i64(height), left >= 0, left + n <= i64(width))
        rows: list[Expr] = []
        columns: list[Expr] = []
        bounds: list[Stmt] = []
        for k in range(n):
            for name, start, extent, known in (("row", top, height, rows), ("column", left, width, columns)):
                valid, more = bind(f"{name}{k}_valid", tirx.all(start + k >= 0, start + k < i64(extent)))
                known.append(valid)
                bounds += more

        def pixel(r: int, s: int, c: Expr, lanes: int, border: bool) -> Expr:
            value = load(self.x, lanes_at(corner + (i64(width) * r + s) * channels + c, lanes))
            value = self._widened(value, lanes)
            if not border:
                return value
            zero = broadcast(const_like(0, self._dtype), lanes)
            return tirx.if_then_else(tirx.all(rows[r], columns[s]), value, zero)

        def pieces(border: bool) -> Stmt:
            def body(c: Expr, lanes: int, _: int) -> Stmt:
                statements: list[Stmt] = []
                keep = keeper(lanes, statements)
                lines = [
                    combine(
                        self.matrices.data,
                        [keep(pixel(r, s, c, lanes, border)) for s in range(n)],
                        keep,
                    )
                    for r in range(n)
                ]
                for q in range(n):
                    values = combine(self.matrices.data, [line[q] for line in lines], keep)
                    for p, value in enumerate(values):
                        at = (p * n + q) * self._data_stride + t * channels + c
                        statements.append(store(data, value, lanes_at(at, lanes)))
                return seq(statements)

            return vector_pieces(i64(channels), self.context.unit.lanes(self._dtype), body)

        return seq(first, second, third, if_then(inside, pieces(False), seq(bounds, pieces(True))))

    def _widened(self, value: Expr, lanes: int) -> Expr:
        """Elements of x less their zero point, in the type of the transformed input."""
        if self.form is FLOAT32:
            return value
        wide = tirx.Cast(vector_dtype(self._dtype, lanes), value)
        return wide - broadcast(const_like(self.zero, self._dtype), lanes) if self.zero else wide

    def _multiply(self, data: Buffer, products: Buffer, group: Expr) -> Stmt:
        """One matrix product ``[tiles, I] x [I, columns]`` for each position."""
        inputs = self._channels[0]
        _, positions, panels, steps, width = self.b_shape[:5]
        columns = self._group_columns
        panel_size = steps * width * self.form.depth

        def out_flat(position: Expr, row: Expr, col: Expr) -> Expr:
            return position * self._product_stride + row * columns + col

        contraction = Contraction(
            groups=positions,
            rows=self.tiles,
            cols=columns,
            a=data,
            a_offset=lambda position, row: position * self._data_stride + row * inputs,
            reduction=(),
            depth=inputs,
            a_row_bytes=element_bytes(self.b) * inputs,
            b=self.b,
            b_offset=lambda position, panel: ((group * positions + position) * panels + panel) * panel_size,
            panel_width=width,
            out_index=lambda position, row, col: [out_flat(position, row, col)],
            out_flat=out_flat,
            multiply_add=self.form,
        )
        plain = Epilogue(anchor_output=products, blocks=(), function=self.function)
        return loop(
            positions,
            lambda position: loop(
                panels,
                lambda panel: emit_rows_of_panel(contraction, plain, self.context, position, panel),
                "panel",
            ),
            "position",
        )

    def _store(self, place: tuple[Expr, Expr, Expr], t: Expr, group: Expr, products: Buffer) -> Stmt:
        """Transform the products of one tile back, ``A^T p A``, and give those inside to the epilogue."""
        m, n = self.matrices.outputs, self.matrices.inputs
        image, row, column = place
        outputs, columns = self._channels[1], self._group_columns

        def body(c: Expr, lanes: int, _: int = 0) -> Stmt:
            statements: list[Stmt] = []
            keep = keeper(lanes, statements)

            def product(p: int, q: int) -> Expr:
                at = (p * n + q) * self._product_stride + t * columns + c
                return keep(load(products, lanes_at(at, lanes)))

            lines = [
                combine(self.matrices.inverse, [product(p, q) for p in range(n)], keep) for q in range(n)
            ]
            for i in range(m):
                values = combine(self.matrices.inverse, [line[i] for line in lines], keep)
                for j, value in enumerate(values):
                    statements.append(self._element((image, row + i, column + j), group * columns + c, value))
            return seq(statements)

        lanes = self.context.unit.lanes()
        left = i64(outputs) - group * columns
        whole = floordiv(tirx.min(i64(columns), left), lanes)
        parts = [loop(whole, lambda v: body(v * lanes, lanes), "vector")]
        rest = outputs % lanes
        if rest:
            start = outputs // lanes * lanes - (self.b_shape[0] - 1) * columns
            tail = vector_pieces(i64(rest), lanes, lambda c, count, _: body(c + start, count))
            parts.append(if_then(tirx.EQ(i64(group), i64(self.b_shape[0] - 1)), tail))
        return seq(parts)

    def _element(self, place: tuple[Expr, Expr, Expr], c: Expr, value: Expr) -> Stmt:
        """The epilogue on one pixel's vector of channels, where the image has that pixel."""
        image, row, column = place
        _, height, width, channels = self.out_shape
        flat = ((image * i64(height) + row) * i64(width) + column) * i64(channels) + c

        def lane_value(lane: Expr) -> Expr:
            return load(value.source, lane)

        lanes = int(str(value.ty.dtype).partition("x")[2] or 1)
        emit = with_registers(
            lanes,
            lambda lane, registers: seq(
                self.epilogue.emit([image, row, column, c + lane], flat + lane, lane_value(lane), registers)
            ),
        )
        m = self.matrices.outputs
        conditions = []
        if as_int(floormod(height, m)) != 0:
            conditions.append(row < i64(height))
        if as_int(floormod(width, m)) != 0:
            conditions.append(column < i64(width))
        return if_then(tirx.all(*conditions), emit) if conditions else emit
