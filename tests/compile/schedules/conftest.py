from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.targets.target import DotProduct, VectorUnit
from assay.compile.targets.x86_64_v3 import TARGET
from assay.compile.tvm_import import import_tvm

tvm = import_tvm()

from tvm import relax, tirx  # noqa: E402

Shape = tuple[int | str, ...]
Build = Callable[..., Any]

# Sixteen lanes run on a CPU with eight too: LLVM splits the vectors.
UNITS = {"8 lanes": TARGET.vector_unit, "16 lanes": VectorUnit(bits=512, registers=32)}


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The compiled kernels of a Relax function."""

    executable: Any

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The function's results on ``arrays``."""
        machine = relax.VirtualMachine(self.executable, tvm.cpu())
        result = machine["main"](*(tvm.runtime.tensor(np.array(a, order="C")) for a in arrays))
        return [r.numpy() for r in ([result] if hasattr(result, "numpy") else result)]

    def source(self, kind: str) -> str:
        """The LLVM IR (``ll``) or the assembly (``asm``)."""
        return str(_llvm(self.executable.mod).inspect_source(kind))


def _llvm(module: Any) -> Any:
    if module.kind == "llvm":
        return module
    return next(found for inner in module.imports if (found := _llvm(inner)) is not None)


def fuse(build: Build, *inputs: tuple[Shape, str]) -> Any:
    """The module of a Relax function of these inputs, fused; a string in a shape is a symbolic size."""
    symbols: dict[str, Any] = {}
    parameters = []
    for position, (shape, dtype) in enumerate(inputs):
        sizes = [symbols.setdefault(s, tirx.Var(s, "int64")) if isinstance(s, str) else s for s in shape]
        parameters.append(relax.Var(f"x{position}", relax.TensorType(sizes, dtype)))
    builder = relax.BlockBuilder()
    with builder.function("main", parameters):
        with builder.dataflow():
            result = builder.emit_output(build(builder, *parameters))
        builder.emit_func_output(result)
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.LegalizeOps(),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
        ]
    )(builder.get())


def schedule(
    build: Build, *inputs: tuple[Shape, str], unit: VectorUnit, sizes: Mapping[str, int] | None = None
) -> Any:
    """The fused module with every kernel scheduled."""
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.dispatch import schedule_function

    module = fuse(build, *inputs)
    for variable, function in list(module.functions.items()):
        if isinstance(function, tirx.PrimFunc):
            context = ScheduleContext(unit=unit, sizes=sizes or {})
            module.update_func(variable, schedule_function(function, context))
    return module


def compile_kernels(
    build: Build, *inputs: tuple[Shape, str], unit: VectorUnit, sizes: Mapping[str, int] | None = None
) -> Kernels:
    """The compiled kernels of a Relax function, scheduled for ``unit`` and symbolic sizes about ``sizes``."""
    from assay.compile.lower import _NEEDLESS, _build_pipeline

    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})
    module = schedule(build, *inputs, unit=unit, sizes=sizes)
    with tvm.transform.PassContext(disabled_pass=list(_NEEDLESS)):
        return Kernels(executable=tvm.compile(module, target=target, relax_pipeline=_build_pipeline(tvm)))


def random_array(shape: Sequence[int], dtype: str, seed: int) -> np.ndarray:
    """Normal floats, small integers, or fair booleans."""
    generator = np.random.default_rng(seed)
    if dtype == "bool":
        return generator.random(shape) < 0.5
    if dtype.startswith("int"):
        return generator.integers(0, 5, shape).astype(dtype)
    return np.asarray(generator.standard_normal(shape), dtype)


@dataclass(frozen=True, kw_only=True)
class Checker:
    """Compares kernels with NumPy for one vector unit."""

    unit: VectorUnit

    def __call__(
        self,
        build: Build,
        reference: Callable[..., Any],
        *inputs: tuple[Shape, str],
        at: Sequence[Mapping[str, int]] = ({},),
        expected: Mapping[str, int] | None = None,
        tolerance: float = 2e-6,
    ) -> None:
        """Run ``build`` and ``reference`` on random inputs at each of the symbolic sizes in ``at``."""
        kernels = compile_kernels(build, *inputs, unit=self.unit, sizes=expected)
        for number, sizes in enumerate(at):
            arrays = [
                random_array([sizes[s] if isinstance(s, str) else s for s in shape], dtype, 10 * number + i)
                for i, (shape, dtype) in enumerate(inputs)
            ]
            wanted = reference(*arrays)
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            for got, want in zip(kernels(*arrays), wanted, strict=True):
                assert got.shape == np.shape(want)
                np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=str(sizes))


@pytest.fixture(params=UNITS.values(), ids=UNITS.keys())
def check(request: pytest.FixtureRequest) -> Checker:
    return Checker(unit=request.param)


@pytest.fixture
def kernels() -> Callable[..., Kernels]:
    """Compiles for eight lanes."""
    return lambda build, *inputs, **options: compile_kernels(build, *inputs, unit=UNITS["8 lanes"], **options)


@pytest.fixture
def scheduled() -> Callable[..., str]:
    """The script of the one scheduled kernel, for eight lanes."""

    def script(build: Build, *inputs: tuple[Shape, str], **options: Any) -> str:
        module = schedule(build, *inputs, unit=UNITS["8 lanes"], **options)
        (function,) = (f for f in module.functions.values() if isinstance(f, tirx.PrimFunc))
        return str(function.script())

    return script


@pytest.fixture(
    params=[
        VectorUnit(bits=128, registers=16),
        VectorUnit(bits=256, registers=16, fma=False),
        VectorUnit(bits=512, registers=32),
        VectorUnit(bits=256, registers=16, dot=DotProduct.VNNI),
    ],
    ids=["128 bits", "no AVX2", "512 bits", "VNNI"],
)
def other_unit(request: pytest.FixtureRequest) -> VectorUnit:
    """A unit for which no function is written instruction by instruction."""
    unit: VectorUnit = request.param
    return unit


@pytest.fixture
def call_function() -> Callable[..., list[np.ndarray]]:
    """Calls a function of instructions, compiled for eight lanes."""

    def call(
        function: Any, arrays: Sequence[np.ndarray], arguments: Callable[[list[Any]], list[Any]]
    ) -> list[np.ndarray]:
        """The arrays, flat, after one call with the ``arguments`` that are made of their buffers."""
        from assay.compile.lower import llvm_target
        from assay.compile.schedules.assembly import importing

        buffers = [tirx.decl_buffer([array.size], str(array.dtype)) for array in arrays]
        body = tirx.Evaluate(function.call(*arguments(buffers)))
        kernel = tirx.PrimFunc(buffers, importing([function], body)).with_attr("global_symbol", "kernel")
        library = tvm.compile(tvm.IRModule({"kernel": kernel}), target=llvm_target(TARGET))
        tensors = [tvm.runtime.tensor(array.reshape(-1)) for array in arrays]
        library["kernel"](*tensors)
        return [tensor.numpy() for tensor in tensors]

    return call


@pytest.fixture(scope="session")
def paged_cases() -> ModuleType:
    """``paged_cases.py``: calls of a paged attention kernel, and their reference."""
    name = "paged_cases"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
