"""What every schedule is told beside the function: the vector unit and the sizes to expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tvm
from tvm import tirx

from assay.compile.schedules.ir import Expr, as_int, simplify, walk
from assay.compile.targets.target import VectorUnit

__all__ = ["ScheduleContext"]

# Below this many scalar operations a loop costs less than waking the workers (about 3 microseconds).
_SERIAL_OPERATIONS = 40_000


@dataclass(frozen=True, kw_only=True)
class ScheduleContext:
    """The vector unit, and the expected size of each symbolic dimension by name."""

    unit: VectorUnit
    sizes: Mapping[str, int] = field(default_factory=dict)

    def expected(self, value: int | Expr) -> int:
        """The value of an extent where it is constant, else at the expected sizes."""
        known = as_int(value)
        if known is not None:
            return known
        symbols = {node for node in walk(value) if isinstance(node, tirx.Var)}
        bound = {symbol: tirx.IntImm(symbol.ty.dtype, self.sizes.get(symbol.name, 64)) for symbol in symbols}
        replaced = _bind(value, bound)
        known = as_int(replaced)
        return 64 if known is None else known

    def is_small(self, operations: int) -> bool:
        """Whether this many scalar operations are better done by one thread."""
        return operations < _SERIAL_OPERATIONS


def _bind(value: Expr, bound: Mapping[Expr, tvm.ir.Expr]) -> Expr:
    from assay.compile.schedules.ir import substitute

    return simplify(substitute(value, bound))
