"""What an artifact tells about the model that it was built from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError, UsageError

if TYPE_CHECKING:
    from assay.models.export import CanonicalModel
    from assay.models.spec import Dim, InputSpec, ModelSpec
    from assay.progress import Progress
    from assay.runtime.manifest import Input, Manifest

__all__ = ["canonical_behind", "is_artifact", "model_behind", "registered_model", "spec_from_manifest"]

_MANIFEST = "manifest.json"


def is_artifact(argument: str) -> bool:
    """Whether an argument that may name a model or an artifact is the path of an artifact."""
    path = Path(argument)
    if path.is_dir():
        # A Hugging Face folder is a model; a folder that is neither is reported as no artifact.
        return (path / _MANIFEST).exists() or not (path / "config.json").exists()
    return path.suffix == ".assay" or (path.is_file() and path.suffix != ".onnx" and _is_zip(path))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def registered_model(manifest: Manifest) -> ModelSpec | None:
    """The registered model of that name and interface, None where there is none."""
    from assay.models.registry import models

    known = models()
    if manifest.model.name not in known:
        return None
    spec = known[manifest.model.name]
    same = {item.name: (item.dtype.value, len(item.shape)) for item in spec.inputs} == {
        item.name: (item.dtype, len(item.shape)) for item in manifest.inputs
    }
    return spec if same else None


def model_behind(manifest: Manifest, given: str | None) -> ModelSpec:
    """The model that the artifact was built from: ``given``, or the registered one of its name.

    Raises UsageError where neither is there.
    """
    if given is not None:
        from assay.models.registry import find_model

        return find_model(given)
    spec = registered_model(manifest)
    if spec is None:
        raise UsageError(
            f"The artifact was built from {manifest.model.name!r}, which Assay does not know by name.",
            hint="Give the ONNX file that it was built from with --model.",
        )
    return spec


def canonical_behind(
    path: Path, manifest: Manifest, given: str | None, cache: Path | None, progress: Progress
) -> CanonicalModel | None:
    """The model behind the artifact at ``path``, for peers to run with the weights that the artifact has.

    None where none is ``given`` and none of its name is registered. Raises ArtifactError where the artifact
    was built from another model.
    """
    if given is None and registered_model(manifest) is None:
        return None
    from assay.compile.cache import BuildCache
    from assay.compile.origin import model_of

    return model_of(path, manifest, model_behind(manifest, given), BuildCache(cache), progress)


def spec_from_manifest(manifest: Manifest) -> ModelSpec:
    """A specification to make inputs by: the registered one, or one of the artifact's interface alone."""
    from assay.models.spec import ModelSpec, Weights

    inputs = tuple(_input_spec(item) for item in manifest.inputs)
    registered = registered_model(manifest)
    if registered is not None:
        return replace(registered, inputs=inputs)
    return ModelSpec(
        name=manifest.model.name,
        description=manifest.model.description,
        provider=_NoProvider(name=manifest.model.name),
        inputs=inputs,
        weights=Weights(manifest.model.weights),
        licence=manifest.model.licence,
    )


@dataclass(frozen=True, kw_only=True)
class _NoProvider:
    """Stands where a model's origin is not known."""

    name: str

    def onnx_path(self, folder: Path) -> Path:
        raise ModelError(f"The artifact of {self.name} does not hold the model that it was built from.")


def _input_spec(item: Input) -> InputSpec:
    from assay.models.spec import DType, InputSpec, SymbolicDim

    shape: tuple[Dim, ...] = tuple(
        dim
        if isinstance(dim, int)
        else SymbolicDim(name=dim.name, default=dim.default, minimum=dim.minimum, maximum=dim.maximum)
        for dim in item.shape
    )
    return InputSpec(name=item.name, dtype=DType(item.dtype), shape=shape)
