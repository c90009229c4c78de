"""The manifest of a build for one target, before it was verified."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, get_args

from assay.compile.cache import installed_versions
from assay.compile.decoders.interface import DecoderOptions, decoder_info, paged_inputs, paged_outputs
from assay.compile.native.platforms import platform_of
from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.target import Launcher
from assay.compile.verify import reference_version
from assay.errors import ModelError
from assay.models.spec import Dim, DType, InputSpec, ModelSpec, SymbolicDim
from assay.runtime.device_code import FILE as DEVICE_CODE
from assay.runtime.manifest import (
    DTypeName,
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
)
from assay.runtime.plan import Plan, needed_features, plan_file

if TYPE_CHECKING:
    from assay.compile.lower import Lowered
    from assay.compile.profiles import Profile
    from assay.compile.quantize.prepare import AppliedScheme
    from assay.compile.targets import AnyTarget
    from assay.models.export import CanonicalModel

__all__ = [
    "LIBRARY",
    "RUNTIME",
    "TOOLS",
    "describe",
    "interface_of",
    "library_name",
    "target_info",
    "weights_of",
]

LIBRARY = "lib/model.so"
RUNTIME = "lib/libtvm_runtime.so"
TOOLS = ("apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "ziglang")


def library_name(target: AnyTarget, library: str = LIBRARY) -> str:
    """The name of ``library`` in an artifact for ``target``: modules and libraries end as its system wants.

    For a GPU it is the description of the files of its kernels.
    """
    if isinstance(target, GpuTarget):
        return f"lib/{DEVICE_CODE}"
    if target.launcher is Launcher.WASM:
        return library.replace(".so", ".wasm")
    platform = platform_of(target.triple)
    return library if platform is None else library.replace(".so", platform.library_suffix)


def weights_of(lowered: Lowered) -> tuple[Weight, ...]:
    """The manifest's entries for the weights of ``lowered``, in its order."""
    return tuple(
        Weight(name=n, dtype=str(a.dtype), shape=a.shape, bytes=a.nbytes)  # type: ignore[arg-type]
        for n, a in lowered.weights.items()
    )


def describe(
    canonical: CanonicalModel, target: AnyTarget, scheme: AppliedScheme, profile: Profile, lowered: Lowered,
    options: DecoderOptions | None = None,
) -> Manifest:  # fmt: skip
    """The manifest of ``lowered``, of one level that was not run yet; ``options`` are those of a decoder.

    Raises ModelError for an input or output of a dtype that the runtime does not take.
    """
    spec, decoder = canonical.spec, canonical.spec.decoder
    options = options or DecoderOptions()
    level = Level(
        target=target_info(target, lowered.plan),
        executed=Execution.NEVER,
        entry=Entry(
            function="main",
            library=library_name(target),
            driver="device" if isinstance(target, GpuTarget) else target.launcher.value,
            plan=None if lowered.plan is None else plan_file(library_name(target)),
            weights=tuple(lowered.weights),
        ),
        unscheduled_kernels=lowered.unscheduled,
        workspace=lowered.workspace,
        verification=Verification(reference=reference_version(), note="Not verified yet."),
    )
    return Manifest(
        assay_version=importlib.metadata.version("assay"),
        model=ModelInfo(
            name=spec.name,
            description=spec.description,
            licence=spec.licence,
            weights=spec.weights.value,
            source_digest=canonical.source_digest,
            canonical_digest=canonical.digest,
        ),
        scheme=scheme.name,
        quantization=scheme.quantization,
        profile=profile.name,
        inputs=_inputs(spec.inputs if decoder is None else paged_inputs(decoder, options)),
        outputs=tuple(
            Output(name=o.name, dtype=_dtype(o.dtype), shape=tuple(o.shape))
            for o in (canonical.outputs if decoder is None else paged_outputs(decoder))
        ),
        weights=weights_of(lowered),
        levels=(level,),
        tvm_runtime=RUNTIME if lowered.plan is None else None,
        decoder=None if decoder is None else decoder_info(decoder, options),
        tools=installed_versions(TOOLS + (("torch", "transformers") if spec.needs_torch else ())),
    )


def interface_of(spec: ModelSpec) -> tuple[Input, ...]:
    """The inputs as the manifest has them. Raises ModelError for a dtype that the runtime does not take."""
    return _inputs(spec.inputs)


def _inputs(inputs: tuple[InputSpec, ...]) -> tuple[Input, ...]:
    return tuple(
        Input(name=i.name, dtype=_dtype(i.dtype), shape=tuple(_size(d) for d in i.shape)) for i in inputs
    )


def target_info(target: AnyTarget, plan: Plan | None = None) -> TargetInfo:
    """What the manifest says of a target, and, of a GPU, of what the kernels of ``plan`` need."""
    if isinstance(target, GpuTarget):
        return TargetInfo(
            name=target.name,
            api=target.api.value,
            triple=target.kind,
            cpu=target.architecture or "any",
            features=() if plan is None else needed_features(plan),
        )
    return TargetInfo(name=target.name, triple=target.triple, cpu=target.cpu, features=target.features)


def _dtype(dtype: DType) -> DTypeName:
    """The name in the manifest. Raises ModelError for a dtype that the runtime does not take."""
    if dtype.value not in get_args(DTypeName):
        raise ModelError(
            f"Inputs and outputs of {dtype.value} cannot be compiled.",
            hint=f"Known: {', '.join(get_args(DTypeName))}. Put a Cast in the model.",
        )
    name: DTypeName = dtype.value
    return name


def _size(dim: Dim) -> int | SymbolicSize:
    if isinstance(dim, SymbolicDim):
        return SymbolicSize(name=dim.name, default=dim.default, minimum=dim.minimum, maximum=dim.maximum)
    return dim
