"""Exact figures of an artifact, read from its files.

Manifests of other versions of Assay are read too: of each field, only where it is and what it means are
assumed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from assay.benchmarks.peers.assay_runtime import artifact_bytes

__all__ = ["Figures", "Identity", "read_figures", "read_identity"]

Figures = dict[str, float | str]
"""Figures by the name of their metric; a text says why there is none."""

_NEVER_COMPARED = "Nothing was compared with ONNX Runtime."
_OF_MANIFESTS = (
    *("kernels", "workspace", "weights"),
    *("error", "cosine_distance", "absolute_error", "relative_error"),
)
_KERNEL_PREFIX = "__tvm_ffi_"
# TVM's own, in every library.
_NOT_KERNELS = ("__tvm_ffi__library_ctx", "__tvm_ffi__library_bin")


class _Workspace(msgspec.Struct):
    maximum_bytes: int


class _Case(msgspec.Struct):
    max_absolute_error: float
    absolute_tolerance: float
    cosine_similarity: float
    max_relative_error: float = math.nan


class _Verification(msgspec.Struct):
    cases: tuple[_Case, ...] = ()


class _Entry(msgspec.Struct):
    library: str


class _Level(msgspec.Struct):
    entry: _Entry
    verification: _Verification
    workspace: _Workspace | None = None


class _Weight(msgspec.Struct):
    bytes: int


class _Manifest(msgspec.Struct):
    levels: tuple[_Level, ...]
    weights: tuple[_Weight, ...]


class _Model(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    weights: Literal["trained", "random"]


class _Named(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1)]


class _TargetLevel(msgspec.Struct):
    target: _Named


class _Symbolic(msgspec.Struct):
    name: str
    default: int


class _Input(msgspec.Struct):
    shape: tuple[int | _Symbolic, ...]


class _Decoder(msgspec.Struct):
    vocabulary: Annotated[int, msgspec.Meta(ge=1)]
    context_length: Annotated[int, msgspec.Meta(ge=2)]


class Identity(msgspec.Struct, frozen=True):
    """Of a manifest, what the artifact is of; ``decoder`` is there for language models."""

    model: _Model
    scheme: Annotated[str, msgspec.Meta(min_length=1)]
    profile: Annotated[str, msgspec.Meta(min_length=1)]
    levels: Annotated[tuple[_TargetLevel, ...], msgspec.Meta(min_length=1)]
    inputs: tuple[_Input, ...]
    decoder: _Decoder | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The default size of each symbolic dimension."""
        dimensions = (dimension for each in self.inputs for dimension in each.shape)
        return {each.name: each.default for each in dimensions if isinstance(each, _Symbolic)}


def read_identity(artifact: Path) -> tuple[Identity, str] | None:
    """What the artifact in the folder ``artifact`` is of, and the digest of its manifest; None if unknown."""
    try:
        content = (artifact / "manifest.json").read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return msgspec.json.decode(content, type=Identity), digest
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None


def read_figures(artifact: Path) -> Figures:
    """The figures of the artifact in the folder ``artifact``, as far as each can be read."""
    figures: Figures = {"artifact_size": float(artifact_bytes(artifact))}
    try:
        manifest = msgspec.json.decode((artifact / "manifest.json").read_bytes(), type=_Manifest)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        reason = f"The manifest cannot be read: {error}."
        return figures | dict.fromkeys(_OF_MANIFESTS, reason)
    readers: dict[str, Callable[[], float | str]] = {
        "kernels": lambda: _kernels(artifact, manifest),
        "workspace": lambda: _workspace(manifest),
        "weights": lambda: float(sum(weight.bytes for weight in manifest.weights)),
        "error": lambda: _error(manifest),
        "cosine_distance": lambda: _cosine_distance(manifest),
        "absolute_error": lambda: _worst(manifest, lambda case: case.max_absolute_error),
        "relative_error": lambda: _worst(manifest, lambda case: case.max_relative_error),
    }
    return figures | {name: read() for name, read in readers.items()}


def _workspace(manifest: _Manifest) -> float | str:
    planned = [level.workspace.maximum_bytes for level in manifest.levels if level.workspace is not None]
    return float(max(planned)) if planned else "The manifest does not tell."


def _cases(manifest: _Manifest) -> list[_Case]:
    return [case for level in manifest.levels for case in level.verification.cases]


def _error(manifest: _Manifest) -> float | str:
    shares = [
        case.max_absolute_error / case.absolute_tolerance
        for case in _cases(manifest)
        if case.absolute_tolerance > 0
    ]
    return max(shares) if shares else _NEVER_COMPARED


def _cosine_distance(manifest: _Manifest) -> float | str:
    return _worst(manifest, lambda case: max(0.0, 1 - case.cosine_similarity))


def _worst(manifest: _Manifest, figure: Callable[[_Case], float]) -> float | str:
    values = [figure(case) for case in _cases(manifest)]
    return max(values) if values else _NEVER_COMPARED


def _kernels(artifact: Path, manifest: _Manifest) -> float | str:
    libraries = sorted({level.entry.library for level in manifest.levels})
    count = 0
    for library in libraries:
        found = _exported(artifact / library)
        if isinstance(found, str):
            return found
        count += len(found)
    return float(count) if count else "The libraries export no kernels."


def _exported(library: Path) -> set[str] | str:
    """Names of the kernels that a library exports, or why they are not known."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with library.open("rb") as stream:
            section: Any = ELFFile(stream).get_section_by_name(".dynsym")
            names = {symbol.name for symbol in section.iter_symbols()} if section is not None else set()
    except (OSError, ELFError) as error:
        return f"The library {library.name} is no ELF file: {error}."
    return {name for name in names if name.startswith(_KERNEL_PREFIX)} - set(_NOT_KERNELS)
