"""An artifact for WebAssembly with kernels written by hand: the drivers are tested without a compiler.

The model: ``y = x * w + 1`` over float32 [n, 3] (``w``: 3 elements), and ``last``, the last element of the
int64 input ``ids``, plus 2^40. The kernels read every argument from the memory that the driver lays out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from assay.runtime.artifact import WEIGHTS, write_artifact
from assay.runtime.javascript_files import javascript_files
from assay.runtime.manifest import (
    Entry,
    Execution,
    Input,
    Level,
    Manifest,
    ModelInfo,
    Output,
    SymbolicSize,
    TargetInfo,
    Verification,
    Weight,
    Workspace,
)
from assay.runtime.plan import (
    Flavour,
    Kernel,
    Place,
    Plan,
    Scalar,
    Step,
    Storage,
    Symbol,
    Tensor,
    encode_plan,
)
from assay.runtime.weights import save_weights

__all__ = ["SCALES", "SOURCE", "make_plan", "module_bytes", "write_case"]

SCALES = np.array([2.0, -1.0, 0.5], np.float32)

SOURCE = Path(__file__).with_suffix(".wat").read_text()


def module_bytes(source: str = SOURCE) -> bytes:
    """The module in its binary form."""
    import wasmtime

    return bytes(wasmtime.wat2wasm(source))


def make_plan(**changes: Any) -> Plan:
    """The plan of the model."""
    count = ("*", "n", 3)
    plan = Plan(
        schema_version=1,
        flavour=Flavour.CPU,
        symbols=(Symbol(name="n", input=0, axis=0), Symbol(name="k", input=1, axis=0)),
        storages=(Storage(bytes=("*", 4, count), output=True), Storage(bytes=8, output=True)),
        tensors=(
            Tensor(place=Place.INPUT, index=0, dtype="float32", shape=("n", 3)),
            Tensor(place=Place.INPUT, index=1, dtype="int64", shape=("k",)),
            Tensor(place=Place.WEIGHT, index=0, dtype="float32", shape=(3,)),
            Tensor(place=Place.STORAGE, index=0, dtype="float32", shape=("n", 3)),
            Tensor(place=Place.STORAGE, index=1, dtype="int64", shape=(1,)),
        ),
        inputs=(0, 1),
        weights=(2,),
        outputs=(3, 4),
        written_inputs=(1,),
        kernels=(Kernel(name="scale"), Kernel(name="add_one"), Kernel(name="last")),
        steps=(
            Step(kernel=0, arguments=(0, 2, 3)),
            Step(kernel=1, arguments=(3, Scalar("int64", count))),
            Step(kernel=2, arguments=(1, 4)),
        ),
    )
    import msgspec

    return msgspec.structs.replace(plan, **changes)


def write_case(folder: Path, *, features: tuple[str, ...] = ("simd128",), **changes: Any) -> Path:
    """The artifact in ``folder``; ``changes`` are of its plan."""
    scratch = folder.parent / f"{folder.name}.scratch"
    scratch.mkdir()
    save_weights(scratch / WEIGHTS, {"w": SCALES, "unused": np.zeros(5, np.int8)})
    level = Level(
        target=TargetInfo(
            name="wasm32-simd", triple="wasm32-unknown-unknown-wasm", cpu="generic", features=features
        ),
        executed=Execution.NEVER,
        entry=Entry(
            function="main",
            library="lib/model.wasm",
            driver="wasm",
            plan="lib/model.plan.json",
            weights=("w",),
        ),
        unscheduled_kernels=(),
        workspace=Workspace(default_bytes=0, maximum_bytes=0),
        verification=Verification(reference="by hand"),
    )
    n = SymbolicSize(name="n", default=2, minimum=1, maximum=1 << 40)
    k = SymbolicSize(name="k", default=4, minimum=1, maximum=9)
    manifest = Manifest(
        assay_version="0",
        model=ModelInfo(
            name="by-hand",
            description="x * w + 1",
            licence="Apache-2.0",
            weights="random",
            source_digest="sha256:" + "0" * 64,
            canonical_digest="sha256:" + "0" * 64,
        ),
        scheme="f32",
        profile="release",
        inputs=(
            Input(name="x", dtype="float32", shape=(n, 3)),
            Input(name="ids", dtype="int64", shape=(k,)),
        ),
        outputs=(
            Output(name="y", dtype="float32", shape=("n", 3)),
            Output(name="last", dtype="int64", shape=(1,)),
        ),
        weights=(
            Weight(name="w", dtype="float32", shape=(3,), bytes=12),
            Weight(name="unused", dtype="int8", shape=(5,), bytes=5),
        ),
        levels=(level,),
        tools={},
    )
    return write_artifact(
        folder,
        manifest,
        {
            "lib/model.wasm": module_bytes(),
            "lib/model.plan.json": encode_plan(make_plan(**changes)),
            WEIGHTS: scratch / WEIGHTS,
            **javascript_files(),
        },
    )
