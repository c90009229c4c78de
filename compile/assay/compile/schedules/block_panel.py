"""Where a product takes the codes of a panel from: the packed bytes, or a buffer that they were spread in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from tvm import tirx

from assay.compile.schedules.assembly import address
from assay.compile.schedules.block_format import BlockFormat, Offset
from assay.compile.schedules.half import widened
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    broadcast,
    const_like,
    i64,
    lanes_at,
    load,
    loop,
    seq,
    store,
)
from assay.compile.targets.target import VectorUnit

__all__ = ["Lets", "Packed", "Panel", "Spread"]


class Lets:
    """Statements that bind values, vectors among them, to variables, each computed once."""

    def __init__(self) -> None:
        self.statements: list[Stmt] = []

    def keep(self, value: Expr, name: str = "value") -> Expr:
        """The variable that holds ``value``."""
        variable = tirx.Var(name, value.ty.dtype)
        self.statements.append(tirx.Bind(variable, value))
        return variable


class Panel(Protocol):
    """A panel of codes, scales and offsets."""

    @property
    def quads(self) -> int:
        """Quads of one step."""
        ...

    def base(self, block: Expr) -> Expr:
        """Where a block starts."""
        ...

    def codes(self, lets: Lets, base: Expr, step: Expr, vector: int) -> list[Expr]:
        """The quads of a step of a block, unsigned bytes, one vector of them each."""
        ...

    def place(self, block: Expr) -> Expr | None:
        """The address of a block spread to one code a byte and float32; None where it is packed."""
        ...

    def scale(self, base: Expr, vector: int) -> Expr:
        """float32 scales of a block."""
        ...

    def offset(self, base: Expr, vector: int) -> Expr:
        """float32 zero points or minimums of a block."""
        ...


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A panel as it lies in memory: ``weights``, flat bytes."""

    form: BlockFormat
    weights: Buffer
    panel: Expr
    unit: VectorUnit

    @property
    def quads(self) -> int:
        """A byte of codes of 4 bits holds two quads."""
        return 8 // self.form.bits

    def base(self, block: Expr) -> Expr:
        """The first byte of a block."""
        return (self.panel * self.form.blocks + block) * self.form.block_bytes

    def codes(self, lets: Lets, base: Expr, step: Expr, vector: int) -> list[Expr]:
        """One load, and the halves of its bytes where they are two quads."""
        size = self.form.vector_bytes
        at = base + (step * self.form.vectors + vector) * size
        raw = lets.keep(load(self.weights, lanes_at(at, size)), "codes")
        if self.form.bits == 8:
            return [raw]
        low = broadcast(const_like(0x0F0F, "uint16"), size // 2)
        words = lets.keep(tirx.reinterpret(f"uint16x{size // 2}", raw), "words")
        above = words >> broadcast(const_like(4, "uint16"), size // 2)
        return [lets.keep(tirx.reinterpret(f"uint8x{size}", half & low), "quad") for half in (words, above)]

    def place(self, block: Expr) -> Expr | None:
        """None: all are packed."""
        return None

    def _numbers(self, at: Expr, dtype: str, vector: int) -> Expr:
        lanes = self.form.lanes
        size = int(dtype[-2:]) // 8
        raw = load(self.weights, lanes_at(at + vector * lanes * size, lanes * size))
        if dtype == "float32":
            return tirx.reinterpret(f"float32x{lanes}", raw)
        return widened(tirx.reinterpret(f"uint16x{lanes}", raw), dtype, lanes, f16c=self.unit.f16c)

    def scale(self, base: Expr, vector: int) -> Expr:
        """The scales behind the codes."""
        return self._numbers(base + self.form.code_bytes, self.form.scale, vector)

    def offset(self, base: Expr, vector: int) -> Expr:
        """The offsets behind the scales."""
        form, at = self.form, base + self.form.offsets_at
        if form.offset is Offset.MINIMUM:
            return self._numbers(at, form.offset_type, vector)
        lanes, place, half = form.lanes, vector, form.vectors // 2
        if form.offset_type == "uint4":
            place = vector % half
        values = tirx.Cast(f"int32x{lanes}", load(self.weights, lanes_at(at + place * lanes, lanes)))
        if form.offset_type == "uint4":
            low = broadcast(const_like(15, "int32"), lanes)
            values = values >> broadcast(const_like(4, "int32"), lanes) if vector >= half else values & low
        return tirx.Cast(f"float32x{lanes}", values)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """``vectors`` of a panel from ``first`` on, spread in a buffer of bytes.

    A block has its codes, one a byte, then float32 scales, then float32 offsets where there are any: one
    stream, which fills all sets of a cache alike.
    """

    form: BlockFormat
    first: int
    vectors: int
    buffer: Buffer
    quads: int = 1
    begin: Expr | None = None

    @staticmethod
    def bytes_of_block(form: BlockFormat, vectors: int) -> int:
        """Bytes of one block."""
        numbers = 1 if form.offset is Offset.CONSTANT else 2
        return vectors * form.lanes * (form.block + 4 * numbers)

    @staticmethod
    def allocated(form: BlockFormat, first: int, vectors: int, blocks: int) -> tuple[Spread, Stmt]:
        """A buffer for ``blocks`` blocks, not filled yet."""
        size = blocks * Spread.bytes_of_block(form, vectors)
        buffer, allocation = allocate([size], "uint8", "spread")
        return Spread(form=form, first=first, vectors=vectors, buffer=buffer), allocation

    def starting(self, block: Expr) -> Spread:
        """The same buffer with ``block`` as the first one in it."""
        return replace(self, begin=block)

    def fill(self, source: Packed, begin: Expr, blocks: Expr) -> Stmt:
        """``blocks`` blocks of a packed panel from ``begin`` on."""
        return loop(blocks, lambda b: self._block(source, begin + b, b), "block")

    def _block(self, source: Packed, block: Expr, own: Expr) -> Stmt:
        form, lets = self.form, Lets()
        base = lets.keep(source.base(block), "base")
        start = own * self.bytes_of_block(form, self.vectors)
        steps, size = form.block // 4 // source.quads, form.vector_bytes

        def step(s: Expr) -> Stmt:
            inner, stores = Lets(), []
            for v in range(self.vectors):
                for q, quad in enumerate(source.codes(inner, base, s, self.first + v)):
                    at = start + self._code(s * source.quads + q, v)
                    stores.append(store(self.buffer, quad, lanes_at(at, size)))
            return seq(inner.statements, stores)

        numbers = []
        for v in range(self.vectors):
            values = [source.scale(base, self.first + v)]
            if form.offset is not Offset.CONSTANT:
                values.append(source.offset(base, self.first + v))
            for kind, value in enumerate(values):
                place = lanes_at(start + self._number(kind, v), size)
                numbers.append(store(self.buffer, tirx.reinterpret(f"uint8x{size}", value), place))
        return seq(lets.statements, loop(steps, step, "step"), numbers)

    def base(self, block: Expr) -> Expr:
        """The first byte of a block."""
        own = i64(block) if self.begin is None else i64(block) - self.begin
        return own * self.bytes_of_block(self.form, self.vectors)

    def _code(self, step: Expr, vector: int) -> Expr:
        return (step * self.vectors + vector) * self.form.vector_bytes

    def _number(self, kind: int, vector: int) -> int:
        """The byte of a block at which a vector's scales (0) or offsets (1) are."""
        form = self.form
        return self.vectors * form.lanes * (form.block + 4 * kind) + vector * form.vector_bytes

    def codes(self, lets: Lets, base: Expr, step: Expr, vector: int) -> list[Expr]:
        """One quad."""
        at = base + self._code(step, vector - self.first)
        return [lets.keep(load(self.buffer, lanes_at(at, self.form.vector_bytes)), "quad")]

    def place(self, block: Expr) -> Expr | None:
        """The block's address in the buffer."""
        return address(self.buffer, self.base(block))

    def _float(self, base: Expr, kind: int, vector: int) -> Expr:
        at = base + self._number(kind, vector - self.first)
        raw = load(self.buffer, lanes_at(at, self.form.vector_bytes))
        return tirx.reinterpret(f"float32x{self.form.lanes}", raw)

    def scale(self, base: Expr, vector: int) -> Expr:
        """float32 scales."""
        return self._float(base, 0, vector)

    def offset(self, base: Expr, vector: int) -> Expr:
        """float32 zero points or minimums."""
        return self._float(base, 1, vector)
