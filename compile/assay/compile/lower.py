"""From a Relax module to an executable: layout, contractions, fusion, schedules, memory plan, code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from assay.compile.decoders.interface import DecoderOptions, paged_dims
from assay.compile.profiles.profile import Profile
from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.target import Launcher, Target
from assay.compile.tvm_import import import_tvm
from assay.errors import AssayError
from assay.progress import Progress, SilentProgress
from assay.runtime.kernels import Kernel
from assay.runtime.manifest import Workspace

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.compile.schedules.choices import Tuning, Workload
    from assay.compile.schedules.context import ScheduleContext
    from assay.models.export import CanonicalModel
    from assay.runtime.plan import Plan

__all__ = [
    "Lowered",
    "compiler_step",
    "kernel_workloads",
    "llvm_target",
    "lower",
    "lower_canonical",
    "unscheduled_functions",
]

# Passes of TVM that take most of the time on our kernels and change nothing: their buffers are as small as
# they can be, and LLVM finds common subexpressions itself.
_NEEDLESS = ("s_tir.CompactBufferAllocation", "tirx.CommonSubexprElim")


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """An executable, its weights in the order in which ``main`` takes them, and the kernels left to TVM.

    ``kernels`` describes what each kernel computes; ``workspace`` is the peak of memory as planned. With a
    ``plan`` the executable is the kernels alone, for a GPU as EmittedCode.
    """

    executable: Any
    weights: dict[str, npt.NDArray[Any]]
    unscheduled: tuple[str, ...]
    kernels: dict[str, Kernel]
    workspace: Workspace
    plan: Plan | None = None


def llvm_target(target: Target) -> Any:
    """TVM's form of a target."""
    tvm = import_tvm()
    config: dict[str, Any] = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.cpu}
    if target.llvm_options:
        config["cl-opt"] = list(target.llvm_options)
    if target.abi is not None:
        config["mabi"] = target.abi
    if target.attributes:
        config["mattr"] = list(target.attributes)
    if target.launcher is Launcher.WASM:
        # TVM knows no width for this machine, and says so each time.
        config["vector-width"] = target.vector_unit.bits
    return tvm.target.Target(config)


def lower(
    module: Any,
    *,
    target: Target,
    profile: Profile,
    sizes: Mapping[str, int],
    maxima: Mapping[str, int],
    bound: Mapping[str, int] | None = None,
    tuning: Tuning | None = None,
    progress: Progress | None = None,
) -> Lowered:
    """Compile ``module`` for ``target``.

    ``sizes`` and ``maxima`` of the symbolic dimensions guide the schedules and bound the memory plan.
    Dimensions in ``bound`` become constants once the weights are packed, so that they are packed as without.
    ``tuning``: measured decisions. Raises AssayError naming the step that failed.
    """
    progress = progress or SilentProgress()
    tvm = import_tvm()
    from assay.compile.memory_plan import plan_workspace, with_upper_bounds
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.work import describe_kernels

    context = ScheduleContext(unit=target.vector_unit, sizes=sizes, tuning=tuning)
    module = _fused(module, target, profile, context, bound or {}, progress)
    with compiler_step(progress, "schedule"):
        module, weights = _without_weights(module, profile)
        kernels = describe_kernels(module)
        module, unscheduled = _schedule(module, context)
        workspace = plan_workspace(module, sizes, maxima)
    free = {name: value for name, value in maxima.items() if name not in (bound or {})}
    module = with_upper_bounds(module, free)
    plan = None
    with compiler_step(progress, "generate code"), tvm.transform.PassContext(disabled_pass=list(_NEEDLESS)):
        if target.launcher is not Launcher.VIRTUAL_MACHINE:
            executable, plan, constants = _planned(module, target)
            weights |= constants
        else:
            executable = tvm.compile(module, target=llvm_target(target), relax_pipeline=_build_pipeline(tvm))
    for name in unscheduled:
        if name in kernels:
            kernels[name] = msgspec.structs.replace(kernels[name], scheduled=False)
    return Lowered(
        executable=executable,
        weights=weights,
        unscheduled=tuple(unscheduled),
        kernels=kernels,
        workspace=workspace,
        plan=plan,
    )


def _planned(module: Any, target: Target) -> tuple[Any, Plan, dict[str, npt.NDArray[Any]]]:
    """The kernels as code, the plan that calls them, and further weights that it takes."""
    import tvm

    from assay.compile.memory_plan import planning_passes
    from assay.compile.plan.cpu import build_kernels, extract_cpu_plan

    planned = tvm.transform.Sequential(planning_passes())(module)
    extracted = extract_cpu_plan(planned)
    return build_kernels(planned, llvm_target(target)), extracted.plan, extracted.constants


def _without_weights(module: Any, profile: Profile) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """``module`` with the kernels and names that it will have, and the weights that it takes."""
    from assay.compile.passes.concat import write_into_concat
    from assay.compile.passes.in_place import plan_in_place
    from assay.compile.passes.weights import extract_weights

    module, weights = extract_weights(module)
    return (plan_in_place(write_into_concat(module)) if profile.fuse else module), weights


def _fused(
    module: Any,
    target: Target,
    profile: Profile,
    context: ScheduleContext,
    bound: Mapping[str, int],
    progress: Progress,
) -> Any:
    """``module`` as kernels that are not scheduled yet, its weights packed and still constants."""
    import tvm
    from tvm import relax

    from assay.compile.passes.attention import fuse_attention
    from assay.compile.passes.bind_sizes import bind_sizes
    from assay.compile.passes.block_products import convert_block_products, join_block_products
    from assay.compile.passes.constants import fold_constant_movement
    from assay.compile.passes.contractions import convert_contractions
    from assay.compile.passes.horizontal import join_projections
    from assay.compile.passes.layout import to_channels_last
    from assay.compile.passes.normalize import normalize
    from assay.compile.passes.norms import join_norms
    from assay.compile.passes.paged_cache import write_cache_in_place
    from assay.compile.passes.quantized import convert_quantized
    from assay.compile.passes.recurrences import convert_recurrences
    from assay.compile.passes.shuffle import sink_shuffles
    from assay.compile.passes.tied_tables import share_tied_tables
    from assay.compile.schedules.legalize import legalizations

    transform = relax.transform
    with compiler_step(progress, "layout"):
        module = normalize(module)
        module = fold_constant_movement(module)
        if profile.fuse:
            module = fuse_attention(join_projections(join_norms(join_block_products(module))))
        module = fold_constant_movement(to_channels_last(module))
        module = sink_shuffles(module)
        module = convert_quantized(module, context, winograd=profile.winograd)
    with compiler_step(progress, "pack weights"):
        module = convert_recurrences(module, context)
        module = convert_block_products(module, context)
        module = share_tied_tables(convert_contractions(module, context, winograd=profile.winograd))
        if bound:
            module = bind_sizes(module, bound)
    with compiler_step(progress, "fuse"):
        with llvm_target(target):
            module = relax.backend.DispatchSortScan()(module)
        legalize = transform.LegalizeOps(legalizations(), skip_ops=["relax.reshape"])
        passes = [legalize, transform.AnnotateTIROpPattern()]
        if profile.fuse:
            passes += [transform.FuseOps(), transform.FuseTIR()]
        module = tvm.transform.Sequential([*passes, transform.DeadCodeElimination()])(module)
        return write_cache_in_place(module, context)


@contextmanager
def compiler_step(progress: Progress, name: str) -> Iterator[None]:
    """One step of the compiler; whatever TVM raises in it, of whatever type, becomes one sentence."""
    with progress.step(name):
        try:
            yield
        except (AssayError, OSError, MemoryError):
            raise
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[0].rstrip(".") if lines else "no reason given"
            raise AssayError(
                f"The step {name!r} of the compiler failed with {type(error).__name__}: {reason}.",
                hint="The model is not to blame: please report this with the smallest model that shows it.",
            ) from error


def _schedule(module: Any, context: Any) -> tuple[Any, list[str]]:
    """Every kernel in its scheduled form; the names of those that keep TVM's own loops."""
    from tvm import tirx

    from assay.compile.schedules.blocks import UnreadableFunctionError
    from assay.compile.schedules.dispatch import schedule_function
    from assay.compile.schedules.forms import known_form
    from assay.compile.schedules.recurrent_kernel import SCHEDULED

    unscheduled = []
    for variable, function in sorted(module.functions.items(), key=lambda item: str(item[0].name_hint)):
        if not isinstance(function, tirx.PrimFunc) or SCHEDULED in (function.attrs or {}):
            continue
        try:
            name = str(variable.name_hint)
            module.update_func(variable, schedule_function(function, context.for_kernel(name)))
        except UnreadableFunctionError:
            form = known_form(function, context.tuning)
            if form is None:
                unscheduled.append(str(variable.name_hint))
            else:
                module.update_func(variable, form)
    return module, unscheduled


def _build_pipeline(tvm: Any) -> Any:
    """TVM's default pipeline from memory planning on; the passes before it ran above."""
    from assay.compile.memory_plan import planning_passes
    from assay.compile.passes.reuse_tensors import reuse_tensors
    from assay.compile.passes.shape_functions import order_shape_functions

    transform = tvm.relax.transform
    return tvm.transform.Sequential(
        [
            *planning_passes(),
            reuse_tensors,
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            order_shape_functions,
            transform.AttachGlobalSymbol(),
        ]
    )


def lower_canonical(
    canonical: CanonicalModel,
    target: Target | GpuTarget,
    profile: Profile,
    progress: Progress,
    model: Any = None,
    *,
    sizes: Mapping[str, int] | None = None,
    bound: Mapping[str, int] | None = None,
    tuning: Tuning | None = None,
    decoder: DecoderOptions | None = None,
) -> Lowered:
    """The canonical model (or ``model``, a variant of it) imported and compiled.

    ``sizes`` are expected in place of the specification's defaults; ``bound`` and ``tuning`` as in ``lower``.
    ``decoder``: what is decided for a model that generates text, which gets the interface of
    ``paged_inputs``.
    """
    dims = canonical.spec.symbolic_dims
    if canonical.spec.decoder is not None:
        dims = paged_dims(canonical.spec.decoder, decoder or DecoderOptions())
    expected = {name: dim.default for name, dim in dims.items()} | dict(sizes or {})
    maxima = {name: dim.maximum for name, dim in dims.items()}
    module = _imported(canonical, progress, model, decoder)
    if isinstance(target, GpuTarget):
        from assay.compile.lower_device import lower_device

        return lower_device(
            module, target=target, profile=profile, sizes=expected, maxima=maxima, progress=progress
        )
    return lower(
        module,
        target=target,
        profile=profile,
        sizes=expected,
        maxima=maxima,
        bound=bound,
        tuning=tuning,
        progress=progress,
    )


def kernel_workloads(
    canonical: CanonicalModel,
    target: Target,
    profile: Profile,
    progress: Progress,
    *,
    sizes: Sequence[Mapping[str, int]],
    tuning: Tuning | None = None,
) -> list[dict[str, Workload]]:
    """For each of ``sizes``, the workloads of the kernels by name; nothing is scheduled.

    The names are those of a build that binds nothing and expects the first of ``sizes``.
    """
    from assay.compile.schedules.context import ScheduleContext
    from assay.compile.schedules.workloads import workloads_of

    contexts = [
        ScheduleContext(
            unit=target.vector_unit, sizes={**canonical.spec.default_sizes(), **each}, tuning=tuning
        )
        for each in sizes
    ]
    module = _imported(canonical, progress)
    import_tvm()
    module, _ = _without_weights(_fused(module, target, profile, contexts[0], {}, progress), profile)
    return [workloads_of(module, context) for context in contexts]


def unscheduled_functions(
    canonical: CanonicalModel, target: Target, profile: Profile, progress: Progress
) -> dict[str, Any]:
    """The kernels of fixed shapes, by name, that no schedule of ours matches, as TVM made them."""
    from assay.compile.schedules.context import ScheduleContext

    context = ScheduleContext(unit=target.vector_unit, sizes=canonical.spec.default_sizes())
    module = _imported(canonical, progress)
    import_tvm()
    module, _ = _without_weights(_fused(module, target, profile, context, {}, progress), profile)
    before = {str(variable.name_hint): function for variable, function in module.functions.items()}
    _, names = _schedule(module, context)
    return {name: before[name] for name in names if _is_fixed(before[name])}


def _is_fixed(function: Any) -> bool:
    from assay.compile.schedules.ir import as_int

    return all(
        hasattr(parameter.ty, "shape") and all(as_int(size) is not None for size in parameter.ty.shape)
        for parameter in function.params
    )


def _imported(
    canonical: CanonicalModel, progress: Progress, model: Any = None, decoder: DecoderOptions | None = None
) -> Any:
    import onnx

    from assay.compile.decoders.paged_graph import to_paged
    from assay.compile.importer import import_onnx

    with progress.step("import"):
        graph = model if model is not None else onnx.load(canonical.path)
        if canonical.spec.decoder is not None:
            graph = to_paged(graph, canonical.spec.decoder, decoder or DecoderOptions())
        return import_onnx(graph)
