"""The model that an artifact was built from."""

from __future__ import annotations

from pathlib import Path

from assay.compile.cache import BuildCache
from assay.compile.quantize.prepare import Calibration, apply_plan, find_plan
from assay.errors import ArtifactError
from assay.models.export import CanonicalModel
from assay.models.spec import ModelSpec
from assay.progress import Progress
from assay.runtime.manifest import Manifest

__all__ = ["model_of"]


def model_of(
    path: Path, manifest: Manifest, spec: ModelSpec, store: BuildCache, progress: Progress
) -> CanonicalModel:
    """``spec`` as the artifact at ``path`` was built from it: its weights stored by the artifact's scheme.

    Raises ArtifactError where the artifact was built from another model, UsageError where it was quantized by
    recorded inputs and the cache has forgotten the result.
    """
    canonical = store.canonical(spec, progress)
    if canonical.digest != manifest.model.canonical_digest:
        raise ArtifactError(
            f"{path} was built from another model than {canonical.spec.name!r} is now.",
            hint="Build it again, or name the model that it was built from with --model.",
        )
    digest = None if manifest.quantization is None else manifest.quantization.calibration
    calibration = None if digest is None else Calibration(digest=digest)
    return apply_plan(store, canonical, find_plan(manifest.scheme), progress, calibration)[0]
