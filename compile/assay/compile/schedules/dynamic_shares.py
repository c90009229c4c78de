"""Shares of a parallel loop that threads take as they become free.

TVM gives every thread one contiguous share before the loop starts. Where a core is slower than others, for
a neighbour on the same machine or a lower clock, all wait for it. Here each thread takes the next iteration
from a counter in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from assay.compile.schedules.assembly import LlvmFunction, address, importing
from assay.compile.schedules.ir import Expr, Stmt, allocate, as_int, i64, if_then, load, parallel, seq, store

__all__ = ["parallel_by_turns"]

# More threads than this take no part.
_MOST_THREADS = 256
# The counter has a cache line of its own.
_LINE = 64 // 8
_FETCH_ADD = LlvmFunction(
    name="assay_fetch_add",
    returns="int64",
    definition="""
define i64 @assay_fetch_add(ptr %counter) {
  %before = atomicrmw add ptr %counter, i64 1 monotonic
  ret i64 %before
}
""",
)


def parallel_by_turns(
    extent: int | Expr, body: Callable[[Expr], Stmt], name: str, *, serial: bool = False
) -> Stmt:
    """``body`` for every number below ``extent``, each done by the thread that is free first.

    For bodies of tens of microseconds: a turn costs an atomic addition to a shared cache line. Serial where
    the work is too small to share, and where there is only one piece.
    """
    if serial or as_int(extent) == 1:
        return parallel(extent, body, name, serial=True)
    counter, declaration = allocate([_LINE], "int64", "counter")
    turn = tirx.Var(name, "int64")

    def worker(_: Expr) -> Stmt:
        taken, declared = allocate([1], "int64", "taken", "local")
        take = store(taken, _FETCH_ADD.call(address(counter, 0)), 0)
        turns = tirx.While(
            load(taken, 0) < i64(extent), seq(tirx.Bind(turn, load(taken, 0)), body(turn), take)
        )
        # TVM runs this as often as there could be threads: those that come late must cost nothing.
        return if_then(load(counter, 0) < i64(extent), seq(declared, take, turns))

    loop = parallel(_MOST_THREADS, worker, "worker")
    return importing([_FETCH_ADD], seq(declaration, store(counter, i64(0), 0), loop))
