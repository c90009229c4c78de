"""The kernel of attention over a paged cache beside ONNX Runtime's GroupQueryAttention, in turn.

``python -m assay.benchmarks.paged_attention`` prints a Markdown table. Both engines hold the same keys and
values, ONNX Runtime in float32 in buffers that past and present share, and must agree before they are
measured. Times are the least of many calls on one layer, whose cache stays in the CPU's caches where it fits:
CPU time of the thread where it is alone, else wall time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from assay.errors import AssayError, BenchmarkError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.compile.schedules.paged_problem import PagedProblem

__all__ = ["CASES", "SHAPES", "Case", "Result", "Shape", "measure"]

_ROUNDS = 12
_SECONDS_PER_ROUND = 0.01
_PAGE = 32
# Rows of the tables of angles, and the longest past and rows together.
_POSITIONS = 8192
# The largest difference of outputs, beside values of about 1.
_TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "int8": 5e-2}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Heads of one layer of a model."""

    name: str
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """``rows`` new tokens of one sequence behind ``past`` tokens."""

    past: int
    rows: int


SHAPES = (
    Shape(name="smollm2-135m", heads=9, kv_heads=3, head_dim=64),
    Shape(name="llama-3.2-1b", heads=32, kv_heads=8, head_dim=64),
    Shape(name="gpt2", heads=12, kv_heads=12, head_dim=64),
)
CASES = tuple(
    Case(past=past, rows=rows)
    for past, rows in ((32, 1), (256, 1), (1024, 1), (4096, 1), (0, 256), (1024, 256))
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Seconds of a call of both engines; bytes of keys and values cached; operations of the products."""

    seconds: float
    peer_seconds: float
    cache_bytes: int
    operations: int


def measure(shape: Shape, case: Case, dtype: str, threads: int) -> Result:
    """Times of one case with a cache of ``dtype``.

    Raises BenchmarkError where the engines do not agree.
    """
    from assay.compile.schedules.paged_problem import PagedProblem

    problem = PagedProblem(
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rotary_dim=shape.head_dim,
        positions=_POSITIONS,
        scale=shape.head_dim**-0.5,
        softcap=0.0,
        layers=1,
        cache_dtype=dtype,  # type: ignore[arg-type]
    )
    operands = _Operands(problem, case)
    ours, output = operands.kernel()
    peer, peer_output = operands.onnxruntime(threads)
    ours()
    peer()
    difference = float(np.abs(output() - peer_output()).max())
    if not difference <= _TOLERANCES[dtype]:
        raise BenchmarkError(
            f"Attention of {shape.name} with {case.past} past and {case.rows} new tokens differs by "
            f"{difference:.2g} from ONNX Runtime's.",
            hint="Please report this.",
        )
    best = _in_turn([ours, peer], thread_time if threads == 1 else perf_counter)
    keys = sum(case.past + i + 1 for i in range(case.rows))
    size = np.dtype(dtype).itemsize
    return Result(
        seconds=best[0],
        peer_seconds=best[1],
        cache_bytes=2 * shape.kv_heads * shape.head_dim * (case.past + case.rows) * size,
        operations=4 * shape.heads * shape.head_dim * keys,
    )


class _Operands:
    """Random rows, keys and values for both engines."""

    def __init__(self, problem: PagedProblem, case: Case) -> None:
        self.p, self.case = problem, case
        generator = np.random.default_rng(0)
        kv, dim = problem.kv_heads, problem.head_dim
        self.qkv = generator.standard_normal((1, case.rows, problem.columns), np.float32)
        self.past = generator.standard_normal((2, case.past, kv, dim), np.float32)
        frequencies = 10000.0 ** (-np.arange(dim // 2) / (dim // 2))
        angles = np.arange(problem.positions)[:, None] * frequencies
        self.cosines, self.sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        self.length = case.past + case.rows
        self.pages = -(-self.length // _PAGE)
        self.table = generator.permutation(self.pages).astype(np.int32)

    def _cache(self) -> list[npt.NDArray[Any]]:
        """The paged cache with the past in it, and its scales if it has any."""
        p = self.p
        padded = np.zeros((2, self.pages * _PAGE, p.kv_heads, p.head_dim), np.float32)
        padded[:, : self.case.past] = self.past
        paged = padded.reshape(2, self.pages, _PAGE, p.kv_heads, p.head_dim).transpose(1, 0, 3, 2, 4)
        cache = np.empty((self.pages, 1, 2, p.kv_heads, _PAGE * p.head_dim), p.cache_dtype)
        scales = np.ones((self.pages, 1, 2, p.kv_heads, _PAGE), np.float32)
        if p.quantized:
            largest = np.abs(paged).max(-1) / np.float32(127)
            scales[self.table, 0] = largest
            paged = np.rint(paged / np.where(largest > 0, largest, 1)[..., None])
        keys = paged[:, 0].swapaxes(-1, -2).reshape(self.pages, p.kv_heads, -1)
        cache[self.table, 0, 0] = keys.astype(p.cache_dtype)
        cache[self.table, 0, 1] = paged[:, 1].reshape(self.pages, p.kv_heads, -1).astype(p.cache_dtype)
        return [cache, scales] if p.quantized else [cache]

    def kernel(self) -> tuple[Callable[[], Any], Callable[[], npt.NDArray[Any]]]:
        """A call of the kernel, and its output."""
        from assay.compile.schedules.paged_problem import Place
        from assay.compile.tvm_import import import_tvm

        tvm, compiled = import_tvm(), _compiled(self.p)
        past, rows = self.case.past, self.case.rows
        arrays = [
            self.qkv,
            self.cosines,
            self.sines,
            np.arange(past, past + rows)[None],
            np.array([past], np.int32),
            np.array([0, rows], np.int32),
            self.table[None],
            np.array(Place(layer=0).numbers(), np.int32),
            *self._cache(),
            np.zeros((1, rows, self.p.heads * self.p.head_dim), np.float32),
        ]
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        return lambda: compiled(*tensors), lambda: np.asarray(tensors[-1].numpy())

    def onnxruntime(self, threads: int) -> tuple[Callable[[], Any], Callable[[], npt.NDArray[Any]]]:
        """A call of ONNX Runtime's operator, and its output."""
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper

        p, length = self.p, self.length
        node = helper.make_node(
            "GroupQueryAttention",
            ["qkv", "", "", "past_key", "past_value", "last", "length", "cosines", "sines"],
            ["output", "key", "value"],
            domain="com.microsoft",
            num_heads=p.heads,
            kv_num_heads=p.kv_heads,
            do_rotary=1,
            scale=p.scale,
        )
        past = np.zeros((2, 1, p.kv_heads, length, p.head_dim), np.float32)
        past[:, 0, :, : self.case.past] = self.past.swapaxes(1, 2)
        feeds = {
            "qkv": self.qkv,
            "past_key": past[0],
            "past_value": past[1],
            "last": np.array([length - 1], np.int32),
            "length": np.array([length], np.int32),
            "cosines": self.cosines,
            "sines": self.sines,
        }
        output = np.zeros((1, self.case.rows, p.heads * p.head_dim), np.float32)

        def info(name: str, array: npt.NDArray[Any]) -> onnx.ValueInfoProto:
            kind = TensorProto.INT32 if array.dtype == np.int32 else TensorProto.FLOAT
            return helper.make_tensor_value_info(name, kind, array.shape)

        results = {"output": output, "key": past[0], "value": past[1]}
        graph = helper.make_graph(
            [node], "attention", [info(*f) for f in feeds.items()], [info(*r) for r in results.items()]
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        result = onnxruntime.OrtValue.ortvalue_from_numpy(output)
        binding = session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        bound = {"output": result, "key": values["past_key"], "value": values["past_value"]}
        for name, value in bound.items():
            binding.bind_ortvalue_output(name, value)
        return lambda: session.run_with_iobinding(binding), lambda: np.asarray(result.numpy())


@cache
def _compiled(problem: PagedProblem) -> Callable[..., None]:
    """The kernel for this machine."""
    from assay.compile.lower import llvm_target
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.paged_attention import paged_attention
    from assay.compile.targets import find_target
    from assay.compile.tvm_import import import_tvm

    target = find_target("native")
    kernel = paged_attention(problem, ScheduleContext(unit=target.vector_unit))
    built = import_tvm().compile(kernel, target=llvm_target(target))
    entry: Callable[..., None] = built["paged_attention"]
    return entry


def _in_turn(calls: Sequence[Callable[[], Any]], clock: Callable[[], float]) -> list[float]:
    """The least seconds of each call: batches of calls in turn."""
    best = [float("inf")] * len(calls)
    for _ in range(_ROUNDS):
        for i, call in enumerate(calls):
            start = clock()
            call()
            count = max(1, int(_SECONDS_PER_ROUND / max(clock() - start, 1e-6)))
            start = clock()
            for _ in range(count):
                call()
            best[i] = min(best[i], (clock() - start) / count)
    return best


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of all shapes and cases; 0, or the code of an error whose line is on stderr."""
    from assay.compile.schedules.paged_problem import CacheDType

    parser = argparse.ArgumentParser(prog="python -m assay.benchmarks.paged_attention", description=__doc__)
    parser.add_argument("--cache-dtype", choices=get_args(CacheDType), default="float16")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    os.environ["TVM_NUM_THREADS"] = str(options.threads)
    try:
        _print_table(options.cache_dtype, options.threads)
    except AssayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _print_table(dtype: str, threads: int) -> None:
    print("| heads of | past | rows | ours | ONNX Runtime / ours | cache read, GB/s | GFLOP/s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for shape in SHAPES:
        for case in CASES:
            r = measure(shape, case, dtype, threads)
            rate = f"{r.cache_bytes / r.seconds / 1e9:.1f}" if case.rows == 1 else ""
            print(
                f"| {shape.name} | {case.past} | {case.rows} | {r.seconds * 1e6:.1f} µs | "
                f"{r.peer_seconds / r.seconds:.2f} | {rate} | {r.operations / r.seconds / 1e9:.3g} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
