"""What every schedule is told beside the function: the vector unit and the sizes to expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import tvm
from tvm import tirx

from assay.compile.schedules.choices import ANALYTIC, Choice, Tuning, Workload
from assay.compile.schedules.ir import Expr, as_int, simplify, walk
from assay.compile.targets.target import VectorUnit

__all__ = ["ScheduleContext"]

# Below this many scalar operations, a loop costs less than it does shared between two threads: waking the
# workers takes 3 to 4.5 microseconds, this many elements from L2 about 7. Callers scale what costs less.
_SERIAL_OPERATIONS = 48_000


@dataclass(frozen=True, kw_only=True)
class ScheduleContext:
    """The vector unit, the expected size of each symbolic dimension by name, and what was measured.

    ``tuning``: measured decisions, None for arithmetic alone. ``choice`` and ``serial`` are those of the
    function that is being scheduled.
    """

    unit: VectorUnit
    sizes: Mapping[str, int] = field(default_factory=dict)
    tuning: Tuning | None = None
    choice: Choice = ANALYTIC
    serial: bool = False

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
        if self.choice.serial is not None:
            return self.choice.serial
        return self.serial or operations < _SERIAL_OPERATIONS

    def is_small_at_run_time(self, operations: Expr) -> Expr:
        """``is_small`` of a number that is known only at run time, as a condition."""
        if self.choice.serial is not None:
            return tirx.const(self.choice.serial, "bool")
        return tirx.const(True, "bool") if self.serial else operations < _SERIAL_OPERATIONS

    def for_kernel(self, name: str) -> ScheduleContext:
        """The context of the kernel ``name``."""
        return self if self.tuning is None else replace(self, serial=name in self.tuning.serial_kernels)

    def with_choice(self, choice: Choice) -> ScheduleContext:
        """The context of a function for whose anchor ``choice`` was made."""
        return replace(self, choice=choice)

    def choice_for(self, workload: Workload) -> Choice:
        """What was measured to be best for ``workload``; the analytic choice where nothing was."""
        return ANALYTIC if self.tuning is None else self.tuning.choice(workload)


def _bind(value: Expr, bound: Mapping[Expr, tvm.ir.Expr]) -> Expr:
    from assay.compile.schedules.ir import substitute

    return simplify(substitute(value, bound))
