"""Device functions of a matrix product and a softmax, with default schedules of TVM."""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import Any

import numpy as np

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.tvm_import import import_tvm

ROWS, INNER, COLUMNS = 37, 48, 40
"""Of the product `x @ w`, whose rows the softmax takes."""


def matrices() -> tuple[np.ndarray[Any, Any], ...]:
    """x, w, relu(x @ w), its softmax."""
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, INNER)).astype(np.float32)
    w = random.standard_normal((INNER, COLUMNS)).astype(np.float32)
    product = np.maximum(x @ w, 0)
    powers = np.exp(product - product.max(-1, keepdims=True))
    return x, w, product, powers / powers.sum(-1, keepdims=True)


@cache
def lowered(target: GpuTarget) -> tuple[Any, Any, dict[str, Any]]:
    """The functions, the target that they are for, and grid and block of each kernel by its name."""
    tvm = import_tvm()
    from tvm import relax, tirx
    from tvm.s_tir import dlight

    builder = relax.BlockBuilder()
    rows = tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((rows, INNER), "float32"))
    w = relax.Var("w", relax.TensorType((INNER, COLUMNS), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            product = builder.emit(relax.op.nn.relu(relax.op.matmul(x, w)))
            result = builder.emit_output(relax.op.nn.softmax(product))
        builder.emit_func_output(result)
    config = tvm.target.Target(target.tvm_config(), host={"kind": "llvm"})
    steps = relax.transform
    with config:
        module = tvm.transform.Sequential(
            [
                steps.LegalizeOps(),
                steps.AnnotateTIROpPattern(),
                steps.FuseOps(),
                steps.FuseTIR(),
                steps.DeadCodeElimination(),
                dlight.ApplyDefaultSchedule(
                    dlight.gpu.Reduction(), dlight.gpu.GeneralReduction(), dlight.gpu.Fallback()
                ),
                steps.ToNonDataflow(),
                steps.CallTIRRewrite(),
                steps.AttachGlobalSymbol(),
            ]
        )(builder.get())
    functions = {name: each for name, each in module.functions.items() if isinstance(each, tirx.PrimFunc)}
    pipeline, _, finalize = tirx.get_default_tir_pipeline(config)
    split = pipeline(tirx.transform.BindTarget(config)(tvm.IRModule(functions)))
    host, device = sys.modules["tvm.tirx.build"].split_host_device_mods(split)
    ((device_target, kernels),) = device.items()
    return finalize()(kernels), device_target, host


def threads(host: Any) -> int:
    """Threads of a block, which both kernels have in one dimension."""
    found = {int(number) for number in re.findall(r"T.int64\((\d+)\), launch_params", str(host))}
    (number,) = found
    return number
