"""One step of the integer micro-kernel of AVX2, instruction by instruction.

Zen's four vector pipes take two multiplications and two additions a cycle, but an addition may take a
multiplication's pipe. In pairs, multiplication, multiplication, addition, addition, they do so seldom; LLVM's
scheduler puts every addition behind its multiplication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, cached_property

from assay.compile.schedules.assembly import LlvmFunction
from assay.compile.schedules.multiply_add import MultiplyAdd, PairsOf16, QuadsOf8Saturating, form_name
from assay.compile.targets.target import DotProduct, VectorUnit

__all__ = ["integer_step"]

_REGISTERS = 16
_BYTES = 32
# Registers for addresses, beside those of the loops around the step.
_POINTERS = 11
_VECTOR = "<8 x i32>"
_CLOBBERS = ["~{memory}", "~{dirflag}", "~{fpsr}", "~{flags}"]


def integer_step(
    unit: VectorUnit, form: MultiplyAdd, *, rows: int, vectors: int, together: int
) -> LlvmFunction | None:
    """A function that adds the products of ``together`` steps to ``rows`` x ``vectors`` registers of int32.

    Its arguments are addresses: of each row's accumulators (``vectors`` registers), of each row's start in A,
    of the first row's element of each step, of B's ``together`` x ``vectors`` registers.
    None where the unit is another than AVX2, the form another, or where the registers do not suffice.
    """
    if unit.bits != 8 * _BYTES or unit.dot is not DotProduct.MULTIPLY_ADD or not unit.fma:
        return None
    kind = form_name(form)
    if kind not in (PairsOf16.__name__, QuadsOf8Saturating.__name__):
        return None
    return _write(kind == QuadsOf8Saturating.__name__, rows, vectors, together)


@cache
def _write(saturating: bool, rows: int, vectors: int, together: int) -> LlvmFunction | None:
    step = _Step(saturating, rows, vectors, together)
    return step.function() if step.fits else None


class _Step:
    """The text of one function: LLVM's loads and stores around one block of instructions.

    ``$0``, ``$1`` ... are the block's operands: the sums, registers that it may overwrite, then its inputs.
    """

    def __init__(self, saturating: bool, rows: int, vectors: int, together: int) -> None:
        self.saturating, self.rows, self.vectors, self.together = saturating, rows, vectors, together
        self.sums = rows * vectors
        # Two sums at a time: of one row, or of two rows where each has one.
        self.two_rows = vectors == 1 and rows > 1
        cells = 2 if self.two_rows else min(vectors, 2)
        # Products, elements of A, products of a later step (the last of these overwrites its element of A).
        later = cells - 1 if saturating and together > 1 and not self.two_rows else 0
        self.scratch = cells + (2 if self.two_rows else 1) + later
        spare = _REGISTERS - self.sums - self.scratch - (1 if saturating else 0)
        self.fits = spare >= 0 and rows + together + 1 <= _POINTERS
        # What is left keeps vectors of B, which are memory operands else.
        self.kept = min(spare, together * vectors) if rows > 1 else 0

    @cached_property
    def _temporaries(self) -> list[str]:
        return [f"${self.sums + n}" for n in range(self.scratch + self.kept)]

    @property
    def _first_input(self) -> int:
        return self.sums + self.scratch + self.kept

    def _left(self, row: int, step: int) -> str:
        return f"(${self._first_input + row},${self._first_input + self.rows + step})"

    def _right(self, step: int, column: int) -> str:
        register = self._first_input + self.rows + self.together
        return f"{(step * self.vectors + column) * _BYTES}(${register})"

    @property
    def _ones(self) -> str:
        return f"${self._first_input + self.rows + self.together + 1}"

    def function(self) -> LlvmFunction:
        """The definition."""
        name = f"assay_{'quads' if self.saturating else 'pairs'}_{self.rows}x{self.vectors}x{self.together}"
        rows, steps = range(self.rows), range(self.together)
        places = [(i, j) for i in rows for j in range(self.vectors)]
        pointers = [*(f"%c{i}" for i in rows), *(f"%a{i}" for i in rows), *(f"%x{s}" for s in steps), "%b"]
        lines = [f"define i32 @{name}({', '.join(f'ptr {pointer}' for pointer in pointers)}) {{"]
        for i, j in places:
            lines.append(f"  %p{i}_{j} = getelementptr i8, ptr %c{i}, i64 {j * _BYTES}")
            lines.append(f"  %v{i}_{j} = load {_VECTOR}, ptr %p{i}_{j}, align 4")
        # Not given as numbers: TVM may make 32 bits of a 64-bit one.
        lines.append("  %start = ptrtoint ptr %a0 to i64")
        for s in steps:
            lines.append(f"  %y{s} = ptrtoint ptr %x{s} to i64")
            lines.append(f"  %z{s} = sub i64 %y{s}, %start")
        result = "{" + ", ".join([_VECTOR] * self._first_input) + "}"
        lines.append(f"  %r = call {result} {self._block()}")
        for number, (i, j) in enumerate(places):
            lines.append(f"  %w{i}_{j} = extractvalue {result} %r, {number}")
            lines.append(f"  store {_VECTOR} %w{i}_{j}, ptr %p{i}_{j}, align 4")
        return LlvmFunction(name=name, definition="\n".join([*lines, "  ret i32 0", "}", ""]))

    def _block(self) -> str:
        """The instructions with their operands."""
        outputs = ["=x"] * self.sums + ["=&x"] * len(self._temporaries)
        inputs = [("r", f"ptr %a{i}") for i in range(self.rows)]
        inputs += [("r", f"i64 %z{s}") for s in range(self.together)]
        inputs.append(("r", "ptr %b"))
        if self.saturating:
            inputs.append(("x", "<16 x i16> splat (i16 1)"))
        places = [(i, j) for i in range(self.rows) for j in range(self.vectors)]
        inputs += [(str(number), f"{_VECTOR} %v{i}_{j}") for number, (i, j) in enumerate(places)]
        text = "\\0A".join(self._instructions())
        constraints = ",".join([*outputs, *(constraint for constraint, _ in inputs), *_CLOBBERS])
        return f'asm sideeffect "{text}", "{constraints}"({", ".join(value for _, value in inputs)})'

    def _instructions(self) -> Iterator[str]:
        places = [(s, j) for s in range(self.together) for j in range(self.vectors)]
        right = {place: self._right(*place) for place in places}
        for place, register in zip(places, self._temporaries[self.scratch :], strict=False):
            yield f"vmovdqu {right[place]}, {register}"
            right[place] = register
        if self.two_rows:
            for i in range(0, self.rows, 2):
                yield from self._cells([(r, 0) for r in range(i, min(i + 2, self.rows))], right)
            return
        for i in range(self.rows):
            for j in range(0, self.vectors, 2):
                yield from self._cells([(i, c) for c in range(j, min(j + 2, self.vectors))], right)

    def _cells(self, cells: Sequence[tuple[int, int]], right: dict[tuple[int, int], str]) -> Iterator[str]:
        """All steps of one or two registers of sums."""
        totals = [f"${i * self.vectors + j}" for i, j in cells]
        products, rest = self._temporaries[: len(cells)], self._temporaries[len(cells) : self.scratch]
        left = dict(zip(sorted({i for i, _ in cells}), rest, strict=False))
        # A product may overwrite its element of A where no other product needs it any more.
        later = [*rest[len(left) :], left[cells[0][0]]][-len(cells) :]
        later = list(left.values()) if len(left) == len(cells) else later
        multiply = "vpmaddubsw" if self.saturating else "vpmaddwd"
        for s in range(self.together):
            for i, register in left.items():
                yield f"vpbroadcastd {self._left(i, s)}, {register}"
            targets = later if s and self.saturating else products
            for (i, j), target in zip(cells, targets, strict=True):
                yield f"{multiply} {right[s, j]}, {left[i]}, {target}"
            if not self.saturating:
                yield from (f"vpaddd {p}, {t}, {t}" for p, t in zip(products, totals, strict=True))
            elif s:
                yield from (f"vpaddw {more}, {p}, {p}" for more, p in zip(targets, products, strict=True))
        if self.saturating:
            yield from (f"vpmaddwd {self._ones}, {p}, {p}" for p in products)
            yield from (f"vpaddd {p}, {t}, {t}" for p, t in zip(products, totals, strict=True))
