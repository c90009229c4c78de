"""Loops that do one thing as fast as this CPU can: what a roof is measured with.

Every kernel is built by the compiler that builds the models, for this machine's own target, and shares its
work between threads as they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from assay.compile.tvm_import import import_tvm

__all__ = ["CeilingKernels", "build_ceiling_kernels"]

# Independent chains of multiply-adds: latency (4) times throughput (2 a cycle) and some to spare.
_CHAINS = 12
_FLOAT = "float32"
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class CeilingKernels:
    """Compiled loops; each takes tensors of float32 and runs ``tasks`` of them in parallel.

    ``multiply_add(x, out, tasks, steps)``: ``steps`` times ``flops_per_step`` operations in each task, on
    registers alone. ``read(x, out, tasks, length, passes)``: every task adds up its own ``length`` elements
    ``passes`` times. ``triad(a, b, c, tasks, length)``: ``a = b + 3 * c`` on ``length`` elements a task.
    ``launch(x, out, tasks)``: next to nothing in each task.
    """

    multiply_add: Callable[..., Any]
    read: Callable[..., Any]
    triad: Callable[..., Any]
    launch: Callable[..., Any]
    flops_per_step: int
    granule: int
    """``length`` of ``read`` and ``triad`` must be a multiple of this."""


def build_ceiling_kernels() -> CeilingKernels:
    """Compile the kernels for this machine. Raises MissingDependencyError without the compiler."""
    tvm = import_tvm()
    from assay.compile.lower import llvm_target
    from assay.compile.targets import find_target

    target = find_target("native")
    lanes = target.vector_unit.lanes()
    module = tvm.IRModule(
        {
            name: make(lanes).with_attr("global_symbol", name).with_attr("tirx.noalias", True)
            for name, make in (
                ("multiply_add", _multiply_add),
                ("read", _read),
                ("triad", _triad),
                ("launch", _launch),
            )
        }
    )
    library = tvm.compile(module, target=llvm_target(target))
    return CeilingKernels(
        multiply_add=library["multiply_add"],
        read=library["read"],
        triad=library["triad"],
        launch=library["launch"],
        flops_per_step=2 * _CHAINS * lanes,
        granule=_CHAINS * lanes,
    )


def _function(buffers: list[Any], scalars: list[Any], body: Any) -> Any:
    from tvm import tirx

    return tirx.PrimFunc([*buffers, *scalars], body)


def _flat(name: str) -> Any:
    from tvm import tirx

    return tirx.decl_buffer([tirx.Var(f"{name}_size", "int64")], _FLOAT, name=name)


def _scalars(*names: str) -> list[Any]:
    from tvm import tirx

    return [tirx.Var(name, "int64") for name in names]


def _registers(lanes: int) -> tuple[list[Any], list[Any]]:
    """One vector accumulator for each chain, and the statements that allocate them."""
    from assay.compile.schedules.ir import allocate

    pairs = [allocate([lanes], _FLOAT, f"acc{index}", scope="local") for index in range(_CHAINS)]
    return [buffer for buffer, _ in pairs], [statement for _, statement in pairs]


def _multiply_add(lanes: int) -> Any:
    from assay.compile.schedules.ir import i64, lanes_at, load, loop, parallel, seq, store

    x, out = _flat("x"), _flat("out")
    tasks, steps = _scalars("tasks", "steps")

    def task(number: Any) -> Any:
        accumulators, allocations = _registers(lanes)
        first, second = load(x, lanes_at(0, lanes)), load(x, lanes_at(lanes, lanes))
        whole = lanes_at(0, lanes)
        start = [
            store(a, load(x, lanes_at(index * lanes, lanes)), whole) for index, a in enumerate(accumulators)
        ]
        step = [store(a, load(a, whole) * first + second, whole) for a in accumulators]
        end = [
            store(out, load(a, whole), lanes_at((number * _CHAINS + index) * lanes, lanes))
            for index, a in enumerate(accumulators)
        ]
        return seq(allocations, start, loop(steps, lambda _: seq(step), "step"), end)

    return _function([x, out], [tasks, steps], parallel(i64(tasks), task, "task"))


def _read(lanes: int) -> Any:
    from assay.compile.schedules.ir import (
        broadcast,
        const_like,
        floordiv,
        lanes_at,
        load,
        loop,
        parallel,
        seq,
        store,
    )

    x, out = _flat("x"), _flat("out")
    tasks, length, passes = _scalars("tasks", "length", "passes")
    granule = _CHAINS * lanes

    def task(number: Any) -> Any:
        accumulators, allocations = _registers(lanes)
        whole = lanes_at(0, lanes)
        zero = broadcast(const_like(0.0, _FLOAT), lanes)

        def step(block: Any) -> Any:
            at = number * length + block * granule
            return seq(
                *(
                    store(a, load(a, whole) + load(x, lanes_at(at + index * lanes, lanes)), whole)
                    for index, a in enumerate(accumulators)
                )
            )

        return seq(
            allocations,
            [store(a, zero, whole) for a in accumulators],
            loop(passes, lambda _: loop(floordiv(length, granule), step, "block"), "pass"),
            [
                store(out, load(a, whole), lanes_at((number * _CHAINS + index) * lanes, lanes))
                for index, a in enumerate(accumulators)
            ],
        )

    return _function([x, out], [tasks, length, passes], parallel(tasks, task, "task"))


def _triad(lanes: int) -> Any:
    from assay.compile.schedules.ir import (
        broadcast,
        const_like,
        floordiv,
        lanes_at,
        load,
        loop,
        parallel,
        seq,
        store,
    )

    a, b, c = _flat("a"), _flat("b"), _flat("c")
    tasks, length = _scalars("tasks", "length")
    factor = broadcast(const_like(3.0, _FLOAT), lanes)

    def task(number: Any) -> Any:
        def step(block: Any) -> Any:
            places = [
                lanes_at(number * length + (block * _CHAINS + i) * lanes, lanes) for i in range(_CHAINS)
            ]
            return seq(*(store(a, load(b, at) + factor * load(c, at), at) for at in places))

        return loop(floordiv(length, _CHAINS * lanes), step, "block")

    return _function([a, b, c], [tasks, length], parallel(tasks, task, "task"))


def _launch(lanes: int) -> Any:
    from assay.compile.schedules.ir import lanes_at, load, parallel, store

    x, out = _flat("x"), _flat("out")
    (tasks,) = _scalars("tasks")

    def task(number: Any) -> Any:
        return store(out, load(x, lanes_at(0, lanes)), lanes_at(number * _CHAINS * lanes, lanes))

    return _function([x, out], [tasks], parallel(tasks, task, "task"))
