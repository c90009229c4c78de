"""One form of the code of a model, compiled and linked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from assay.compile.decoders.interface import DecoderOptions
from assay.compile.decoders.text_files import text_files
from assay.compile.describe import LIBRARY, RUNTIME, library_name
from assay.compile.lower import Lowered, lower_canonical
from assay.compile.targets.gpu_target import GpuApi, GpuTarget
from assay.compile.targets.target import Launcher, Target
from assay.compile.tvm_import import import_tvm
from assay.progress import Progress
from assay.runtime.artifact import WEIGHTS
from assay.runtime.device_code import encode_device_code
from assay.runtime.javascript_files import javascript_files
from assay.runtime.kernels import encode_kernels, kernels_file
from assay.runtime.plan import encode_plan, plan_file
from assay.runtime.weights import save_weights

if TYPE_CHECKING:
    from assay.compile.profiles import Profile
    from assay.compile.schedules.choices import Tuning
    from assay.compile.targets import AnyTarget
    from assay.models.export import CanonicalModel

__all__ = ["Variant", "compile_variant"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One form of the code of a model: the name of its library, sizes that are bound, what was measured.

    ``decoder``: what the build decides for a model that generates text.
    """

    library: str = LIBRARY
    bound: Mapping[str, int] = field(default_factory=dict)
    tuning: Tuning | None = None
    decoder: DecoderOptions = field(default_factory=DecoderOptions)


def compile_variant(
    canonical: CanonicalModel,
    target: AnyTarget,
    profile: Profile,
    folder: Path,
    progress: Progress,
    variant: Variant,
) -> tuple[dict[str, bytes | Path], Lowered]:
    """The files of an artifact, made in ``folder``, and what they were made from."""
    from assay.compile.emit import runtime_library

    with progress.step("start the compiler"):
        import_tvm()
    lowered = lower_canonical(
        canonical,
        target,
        profile,
        progress,
        bound=variant.bound,
        tuning=variant.tuning,
        decoder=variant.decoder,
    )
    name = library_name(target, variant.library)
    files: dict[str, bytes | Path] = {
        kernels_file(name): encode_kernels(lowered.kernels),
        **text_files(canonical.spec.decoder),
    }
    if isinstance(target, GpuTarget):
        files[name] = encode_device_code(lowered.executable.description)
        files.update({f"lib/{each}": code for each, code in lowered.executable.files.items()})
    else:
        with progress.step("link"):
            files[name] = _linked(lowered, target, folder)
    if lowered.plan is None:
        files[RUNTIME] = runtime_library()
    else:
        files[plan_file(name)] = encode_plan(lowered.plan)
    if lowered.weights:
        with progress.step("write weights"):
            save_weights(folder / WEIGHTS, lowered.weights)
        files[WEIGHTS] = folder / WEIGHTS
    if _in_browsers(target):
        files.update(javascript_files())
    return files, lowered


def _in_browsers(target: AnyTarget) -> bool:
    if isinstance(target, GpuTarget):
        return target.api is GpuApi.WEBGPU
    return target.launcher is Launcher.WASM


def _linked(lowered: Lowered, target: Target, folder: Path) -> Path:
    from assay.compile.emit import emit_kernels, emit_library

    if lowered.plan is None:
        return emit_library(lowered.executable, target, folder)
    names = [kernel.name for kernel in lowered.plan.kernels]
    return emit_kernels(lowered.executable, names, target, folder)
