"""Compiles the test model to the library named on the command line, in a process of its own.

The model: y = relu(x @ w + b), z = exp(-y), with a symbolic batch; weights come as one tuple.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# TVM's ffi would import torch, which takes seconds.
sys.modules["torch"] = None  # type: ignore[assignment]

import tvm  # noqa: E402
from tvm import relax, s_tir, tirx  # noqa: E402

ROWS, COLUMNS = 96, 33


def build() -> tvm.IRModule:
    batch = tirx.Var("batch", "int64")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((batch, ROWS), "float32"))
    w = relax.Var("w", relax.TensorType((ROWS, COLUMNS), "float32"))
    b = relax.Var("b", relax.TensorType((COLUMNS,), "float32"))
    with builder.function("main", [x, w, b], attrs={"num_input": 1}):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.relu(relax.op.matmul(x, w) + b))
            z = builder.emit(relax.op.exp(relax.op.negative(y)))
            outputs = builder.emit_output(relax.Tuple([y, z]))
        builder.emit_func_output(outputs)
    module = relax.transform.BundleModelParams()(builder.get())
    module = relax.transform.LegalizeOps()(module)
    schedule = s_tir.Schedule(module)
    schedule.work_on("matmul")
    schedule.parallel(schedule.get_loops(schedule.get_sblock("matmul"))[0])
    return schedule.mod


def link(output: str, objects: list[str], options: list[str] | None = None, **_: object) -> None:
    command = [sys.executable, "-m", "ziglang", "ld.lld", "-shared", "-s", "-o", output, *objects]
    subprocess.run([*command, *(options or [])], check=True)


link.object_format = "o"  # type: ignore[attr-defined]

if __name__ == "__main__":
    output = Path(sys.argv[1])
    target = tvm.target.Target({"kind": "llvm"})
    tvm.compile(build(), target=target).export_library(str(output), fcompile=link)
    print(Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so")
