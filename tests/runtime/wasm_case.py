"""An artifact for WebAssembly whose kernels are written by hand, so that the drivers are tested without a compiler.

The model: ``y = x * w + 1`` over float32 [n, 3] (``w``: 3 elements), and ``last``, the last element of the int64
input ``ids``, plus 2^40. The kernels read every argument from the memory that the driver lays out.
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

# $arg: the pointer of argument number i. $extent: int64 extent of a DLTensor.
SOURCE = r"""
(module
  (import "env" "TVMBackendAllocWorkspace" (func $take (param i32 i32 i64 i32 i32) (result i32)))
  (import "env" "TVMBackendFreeWorkspace" (func $give (param i32 i32 i32) (result i32)))
  (import "env" "TVMBackendParallelLaunch" (func $launch (param i32 i32 i32) (result i32)))
  (import "env" "TVMFFIErrorSetRaisedFromCStr" (func $fail (param i32 i32)))
  (import "env" "TVMFFIErrorSetRaisedFromCStrParts" (func $fail_in_parts (param i32 i32 i32)))
  (import "env" "erff" (func $erff (param f32) (result f32)))
  (import "env" "pow" (func $pow (param f64 f64) (result f64)))
  (memory (export "memory") 1)
  (global (export "__heap_base") i32 (i32.const 1040))
  (table (export "__indirect_function_table") 2 2 funcref)
  (elem (i32.const 1) $task)
  (data (i32.const 16) "ValueError\00too \00bad\00")
  (data (i32.const 64) "\1b\00\00\00\20\00\00\00")
  (func $arg (param $args i32) (param $i i32) (result i32)
    (if (i32.eqz (i32.eq (i32.const 7) (i32.load (i32.add (local.get $args) (i32.mul (local.get $i) (i32.const 16))))))
      (then (unreachable)))
    (i32.load offset=8 (i32.add (local.get $args) (i32.mul (local.get $i) (i32.const 16)))))
  (func $extent (param $t i32) (param $axis i32) (result i32)
    (i32.wrap_i64 (i64.load (i32.add (i32.load offset=20 (local.get $t)) (i32.mul (local.get $axis) (i32.const 8))))))
  (func $stride (param $t i32) (param $axis i32) (result i32)
    (i32.wrap_i64 (i64.load (i32.add (i32.load offset=24 (local.get $t)) (i32.mul (local.get $axis) (i32.const 8))))))
  ;; x [n, 3], w [3], y [n, 3]: y = x * w
  (func (export "__tvm_ffi_scale") (param i32 i32 i32 i32) (result i32)
    (local $x i32) (local $w i32) (local $y i32) (local $i i32) (local $n i32)
    (if (i32.ne (local.get 2) (i32.const 3)) (then
      (call $fail_in_parts (i32.const 16) (i32.const 64) (i32.const 2)) (return (i32.const -1))))
    (local.set $x (call $arg (local.get 1) (i32.const 0)))
    (local.set $w (call $arg (local.get 1) (i32.const 1)))
    (local.set $y (call $arg (local.get 1) (i32.const 2)))
    (local.set $n (i32.mul (call $extent (local.get $x) (i32.const 0)) (call $stride (local.get $x) (i32.const 0))))
    (local.set $x (i32.load (local.get $x)))
    (local.set $w (i32.load (local.get $w)))
    (local.set $y (i32.load (local.get $y)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
      (f32.store (i32.add (local.get $y) (i32.shl (local.get $i) (i32.const 2)))
        (f32.mul (f32.load (i32.add (local.get $x) (i32.shl (local.get $i) (i32.const 2))))
          (f32.load (i32.add (local.get $w) (i32.shl (i32.rem_u (local.get $i) (i32.const 3)) (i32.const 2))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.const 0))
  ;; y [n, 3], count: adds one to the first count elements, by a parallel loop over a copy of y's address
  (func (export "__tvm_ffi_add_one") (param i32 i32 i32 i32) (result i32)
    (local $place i32) (local $status i32)
    (local.set $place (call $take (i32.const 1) (i32.const 0) (i64.const 200000) (i32.const 2) (i32.const 32)))
    (memory.fill (local.get $place) (i32.const 255) (i32.const 200000))
    (i32.store (local.get $place) (i32.load (call $arg (local.get 1) (i32.const 0))))
    (i32.store offset=4 (local.get $place) (i32.load offset=24 (local.get 1)))
    (local.set $status (call $launch (i32.const 1) (local.get $place) (i32.const 0)))
    (drop (call $give (i32.const 1) (i32.const 0) (local.get $place)))
    (local.get $status))
  (func $task (param $id i32) (param $group i32) (param $data i32) (result i32)
    (local $y i32) (local $i i32)
    (if (i32.ne (i32.load offset=4 (local.get $group)) (i32.const 1)) (then (unreachable)))
    (if (i32.ne (local.get $id) (i32.const 0)) (then (unreachable)))
    (local.set $y (i32.load (local.get $data)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (i32.load offset=4 (local.get $data))))
      (f32.store (local.get $y) (f32.add (f32.load (local.get $y)) (f32.const 1)))
      (local.set $y (i32.add (local.get $y) (i32.const 4)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.const 0))
  ;; ids [k], last [1], ids is written: its first element becomes -5
  (func (export "__tvm_ffi_last") (param i32 i32 i32 i32) (result i32)
    (local $ids i32)
    (local.set $ids (call $arg (local.get 1) (i32.const 0)))
    (i64.store (i32.load (call $arg (local.get 1) (i32.const 1)))
      (i64.add (i64.const 1099511627776)
        (i64.load (i32.add (i32.load (local.get $ids))
          (i32.mul (i32.const 8) (i32.sub (call $extent (local.get $ids) (i32.const 0)) (i32.const 1)))))))
    (i64.store (i32.load (local.get $ids)) (i64.const -5))
    (i32.const 0))
  (func (export "__tvm_ffi_refuse") (param i32 i32 i32 i32) (result i32)
    (call $fail (i32.const 16) (i32.const 27)) (i32.const -1))
  (func (export "__tvm_ffi_stop") (param i32 i32 i32 i32) (result i32) (unreachable))
  (func (export "erff") (param f32) (result f32) (call $erff (local.get 0)))
  (func (export "pow") (param f64 f64) (result f64) (call $pow (local.get 0) (local.get 1)))
)
"""


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
