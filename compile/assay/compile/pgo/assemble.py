"""An artifact from the code for all sizes and the code for single ones, over one file of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from assay.compile.describe import LIBRARY, RUNTIME
from assay.compile.schedules.choices import Tuning
from assay.compile.variant import Variant
from assay.runtime.artifact import WEIGHTS, Artifact
from assay.runtime.manifest import Entry, Manifest, Specialization, Weight
from assay.runtime.weights import save_weights

if TYPE_CHECKING:
    from assay.compile.lower import Lowered
    from assay.models.spec import Array

__all__ = ["Code", "Files", "assemble", "code_of", "code_of_artifact", "label", "library_for"]

Files = dict[str, bytes | Path]


@dataclass(frozen=True, kw_only=True)
class Code:
    """One library of an artifact: its files without weights, its entry and the arrays that it takes.

    ``sizes``: those that it is for, none for all. ``tuning``: what was measured and went into it.
    """

    entry: Entry
    files: Files
    arrays: Mapping[str, Array]
    tuning: Tuning
    sizes: Mapping[str, int] = field(default_factory=dict)


def code_of(variant: Variant, files: Files, lowered: Lowered) -> Code:
    """What was compiled, without what all libraries share."""
    shared = (WEIGHTS, RUNTIME)
    return Code(
        entry=Entry(function="main", library=variant.library, weights=tuple(lowered.weights)),
        files={name: content for name, content in files.items() if name not in shared},
        arrays=lowered.weights,
        tuning=variant.tuning or Tuning(choices={}),
        sizes=dict(variant.bound),
    )


def code_of_artifact(artifact: Artifact, tuning: Tuning | None) -> Code:
    """The code of an artifact of one level as it is."""
    (level,) = artifact.manifest.levels
    shared = (WEIGHTS, artifact.manifest.tvm_runtime)
    return Code(
        entry=level.entry,
        files={name: artifact.path(name) for name in artifact.manifest.files if name not in shared},
        arrays=artifact.weights(),
        tuning=tuning or Tuning(choices={}),
    )


def assemble(release: Artifact, main: Code, special: Sequence[Code], folder: Path) -> tuple[Manifest, Files]:
    """Manifest and files of this code in place of release's; weights are written to ``folder``.

    Weights that have the same dtype, shape and bytes are kept once.
    """
    names: dict[tuple[Any, ...], str] = {}
    arrays: dict[str, Array] = {}

    def entry(code: Code) -> Entry:
        taken = []
        for name, array in code.arrays.items():
            key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
            if key not in names:
                own = name if name not in arrays else f"{label(code.sizes) or 'main'}/{name}"
                names[key] = own
                arrays[own] = array
            taken.append(names[key])
        return msgspec.structs.replace(code.entry, weights=tuple(taken))

    entries = [entry(code) for code in (main, *special)]
    files: Files = {name: content for code in (main, *special) for name, content in code.files.items()}
    runtime = release.manifest.tvm_runtime
    if runtime is not None:
        files[runtime] = release.path(runtime)
    if arrays:
        save_weights(folder / WEIGHTS, arrays)
        files[WEIGHTS] = folder / WEIGHTS
    specializations = tuple(
        Specialization(sizes=dict(code.sizes), entry=each)
        for code, each in zip(special, entries[1:], strict=True)
    )
    (level,) = release.manifest.levels
    level = msgspec.structs.replace(level, entry=entries[0], specializations=specializations)
    weights = tuple(
        Weight(name=name, dtype=str(a.dtype), shape=a.shape, bytes=a.nbytes)  # type: ignore[arg-type]
        for name, a in arrays.items()
    )
    manifest = msgspec.structs.replace(
        release.manifest, profile="pgo", levels=(level,), weights=weights, files={}
    )
    return manifest, files


def label(sizes: Mapping[str, int]) -> str:
    """Sizes in words."""
    return ",".join(f"{name}={size}" for name, size in sorted(sizes.items()))


def library_for(sizes: Mapping[str, int]) -> str:
    """The name of the library of code for these sizes."""
    parts = [
        f"{''.join(c if c.isalnum() else '_' for c in name)}{size}" for name, size in sorted(sizes.items())
    ]
    return LIBRARY.replace(".so", f"-{'-'.join(parts)}.so")
