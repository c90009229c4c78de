"""RMS norm of rows on a device: a group of threads a row, which adds up its squares in shared memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from assay.compile.device_schedules.threads import barrier, launch, local, shared, turns
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    bind,
    const_like,
    i64,
    load,
    loop,
    seq,
    store,
)

__all__ = ["RowNorm", "norm_kernel"]

_THREADS = 64


@dataclass(frozen=True, kw_only=True)
class RowNorm:
    """A row of ``steps`` over the root of its mean square plus ``epsilon``, times ``gain(k, lanes)``."""

    steps: int
    epsilon: float
    gain: Callable[[Expr, int], Expr]

    def root(self, squares: Expr) -> Expr:
        """What a row whose squares have this sum is multiplied by, beside the gains."""
        mean = squares * const_like(1 / self.steps, "float32")
        return tirx.rsqrt(mean + const_like(self.epsilon, "float32"))


def norm_kernel(
    rows: Expr, norm: RowNorm, get: Callable[[Expr, Expr], Expr], put: Callable[[Expr, Expr, Expr], Stmt]
) -> Stmt:
    """``put(row, k, value)`` for every element of the norm of ``get(row, k)``."""

    def thread(row: Expr, lane: Expr) -> Stmt:
        total, one = local(1, "float32", "total")
        partial, two = shared(_THREADS, "float32", "partial")
        zero = store(total, const_like(0.0, "float32"), 0)
        own = turns(i64(norm.steps), lane, _THREADS)

        def square(i: Expr) -> Stmt:
            value, bound = bind("value", get(row, lane + i * _THREADS))
            return seq(bound, store(total, load(total, 0) + value * value, 0))

        def add(t: Expr) -> Stmt:
            return store(total, load(total, 0) + load(partial, t), 0)

        root, bound = bind("root", norm.root(load(total, 0)))

        def write(i: Expr) -> Stmt:
            k, first = bind("k", lane + i * _THREADS)
            return seq(first, put(row, k, get(row, k) * root * norm.gain(k, 1)))

        return seq(
            one, two, zero, loop(own, square, "turn"), store(partial, load(total, 0), lane), barrier(),
            zero, loop(_THREADS, add, "part"), bound, loop(own, write, "turn"),
        )  # fmt: skip

    return launch(i64(rows), _THREADS, thread)
