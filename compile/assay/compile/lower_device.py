"""From a Relax module to kernels for a GPU and the plan that launches them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from assay.compile.lower import Lowered, compiler_step
from assay.compile.profiles.profile import Profile
from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.tvm_import import import_tvm
from assay.progress import Progress, SilentProgress

__all__ = ["gpu_target", "lower_device"]


def gpu_target(target: GpuTarget) -> Any:
    """TVM's form of a target for a GPU, with a host whose code is never made."""
    return import_tvm().target.Target(target.tvm_config(), host={"kind": "llvm"})


def lower_device(
    module: Any,
    *,
    target: GpuTarget,
    profile: Profile,
    sizes: Mapping[str, int],
    maxima: Mapping[str, int],
    own_schedules: bool = True,
    progress: Progress | None = None,
) -> Lowered:
    """Compile ``module`` for the GPU ``target``, without ``own_schedules`` with those of dlight alone.

    ``sizes`` and ``maxima`` of the symbolic dimensions bound the memory plan. The weights keep the layouts of
    the model. Raises UnsupportedOperatorError for what the target cannot compute, and AssayError naming the
    step that failed.
    """
    progress = progress or SilentProgress()
    tvm = import_tvm()
    from assay.compile.device_code import emit_device_code
    from assay.compile.device_schedules import schedule_kernels
    from assay.compile.memory_plan import plan_workspace, planning_passes, with_upper_bounds
    from assay.compile.passes.weights import extract_weights
    from assay.compile.plan.device import describe_kernels, extract_device_plan, split_kernels
    from assay.compile.work import describe_kernels as describe_work

    tvm_target = gpu_target(target)
    module = _fused(module, target, tvm_target, profile, progress, own_schedules=own_schedules)
    with compiler_step(progress, "schedule"):
        module, weights = extract_weights(module)
        work = describe_work(module)
        workspace = plan_workspace(module, sizes, maxima)
        module, unscheduled = schedule_kernels(module, target, tvm_target, ours=own_schedules)
    with compiler_step(progress, "generate code"):
        planned = tvm.transform.Sequential([*planning_passes(), tvm.relax.transform.AttachGlobalSymbol()])(
            with_upper_bounds(module, maxima)
        )
        split = split_kernels(planned, tvm_target)
        code = emit_device_code(split.kernels, tvm.target.Target(target.tvm_config()), target)
        file = next(iter(code.description.files.values()))
        extracted = extract_device_plan(planned["main"], split, describe_kernels(split.kernels, file))
    for name in unscheduled:
        if name in work:
            work[name] = msgspec.structs.replace(work[name], scheduled=False)
    return Lowered(
        executable=code,
        weights=weights | extracted.constants,
        unscheduled=tuple(unscheduled),
        kernels=work,
        workspace=workspace,
        plan=extracted.plan,
    )


def _fused(
    module: Any,
    target: GpuTarget,
    tvm_target: Any,
    profile: Profile,
    progress: Progress,
    *,
    own_schedules: bool,
) -> Any:
    """``module`` as kernels that are not scheduled yet, its weights still constants.

    Of the passes for the CPU, those that only simplify the graph run here too; those that pack weights or
    choose a layout do not.
    """
    import tvm
    from tvm import relax

    from assay.compile.device_schedules.attention import fits_attention
    from assay.compile.passes.attention import fuse_attention
    from assay.compile.passes.buffer_limit import fuse_within, split_concatenations
    from assay.compile.passes.constants import fold_constant_movement
    from assay.compile.passes.device_forms import refuse_scans, to_device_forms
    from assay.compile.passes.device_operators import convert_for_devices
    from assay.compile.passes.half_weights import keep_half_weights
    from assay.compile.passes.large_weights import split_large_weights
    from assay.compile.passes.normalize import normalize
    from assay.compile.passes.norms import join_norms
    from assay.compile.passes.plain_names import name_inputs_plainly
    from assay.compile.schedules.legalize import legalizations

    transform = relax.transform
    with compiler_step(progress, "layout"):
        module = name_inputs_plainly(module)
        if profile.fuse:
            module = join_norms(module)
        module = keep_half_weights(module, target.largest_buffer)
        module = convert_for_devices(module, target.most_buffers)
        module = fold_constant_movement(normalize(module))
        if profile.fuse:
            module = fold_constant_movement(join_norms(module))
        if profile.fuse and own_schedules:
            module = fuse_attention(module, partial(fits_attention, target))
        module = split_large_weights(module, target.largest_buffer)
    with compiler_step(progress, "fuse"):
        legalize = transform.LegalizeOps(legalizations(), skip_ops=["relax.reshape"])
        passes = [transform.DecomposeOpsForInference(), legalize, transform.AnnotateTIROpPattern()]
        if profile.fuse:
            passes.append(transform.FuseOps())
        with tvm_target:
            module = split_concatenations(refuse_scans(module), target.most_buffers)
            module = tvm.transform.Sequential(passes)(module)
            if profile.fuse:
                module = fuse_within(module, target.most_buffers)
            module = transform.DeadCodeElimination()(module)
        return to_device_forms(module, target)
