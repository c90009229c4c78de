"""Profile data: which kernels ran at which sizes, how often, and for how long; a JSON file that merges.

The schema is checked in as ``docs/schema/profile-data.schema.json``; write it anew with
``python -m assay.compile.pgo.data > docs/schema/profile-data.schema.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

from assay.errors import ProfileDataError
from assay.runtime.atomic import replace_file
from assay.schema import published_schema

__all__ = [
    "SCHEMA_VERSION",
    "KernelSample",
    "ModelDigest",
    "ProfileData",
    "RunSample",
    "merge_profiles",
    "profile_schema",
    "read_profile",
    "write_profile",
]

SCHEMA_VERSION = 1

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in a profile: immutable, and strict about unknown fields."""


class ModelDigest(Struct, frozen=True, kw_only=True):
    """Which model was run: its name, and the digest of its canonical ONNX."""

    name: Name
    canonical_digest: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]


class RunSample(Struct, frozen=True, kw_only=True):
    """Runs of the whole model at one size of every symbolic dimension on one machine.

    ``seconds`` is the sum over ``runs`` without the instrument.
    """

    machine: Name
    target: Name
    threads: Count
    sizes: dict[str, int]
    runs: Count
    seconds: Seconds


class KernelSample(Struct, frozen=True, kw_only=True):
    """Calls of one kernel with arguments of the same shapes, on one machine.

    ``shapes`` are those of its arguments in order, weights and outputs included; a scalar has none.
    ``workload`` is the key of the contraction that it is, None for other kernels. ``seconds`` is the sum over
    ``calls``.
    """

    machine: Name
    target: Name
    threads: Count
    kernel: Name
    workload: str | None
    sizes: dict[str, int]
    shapes: tuple[tuple[int, ...], ...]
    calls: Count
    seconds: Seconds


class ProfileData(Struct, frozen=True, kw_only=True):
    """What instrumented runs of one model found."""

    schema_version: int = SCHEMA_VERSION
    model: ModelDigest
    runs: tuple[RunSample, ...]
    kernels: tuple[KernelSample, ...]


class _Version(msgspec.Struct):
    schema_version: int


def merge_profiles(profiles: Sequence[ProfileData]) -> ProfileData:
    """One profile of all: counts and seconds of equal machines, sizes and shapes are added up.

    Raises ProfileDataError for profiles of different models.
    """
    first = profiles[0]
    for other in profiles[1:]:
        if other.model.canonical_digest != first.model.canonical_digest:
            raise ProfileDataError(
                f"The profiles are of different models: {first.model.name} ({_short(first)}) and "
                f"{other.model.name} ({_short(other)}).",
                hint="Merge profiles of one model; the digest is that of its canonical ONNX.",
            )
    return ProfileData(
        model=first.model,
        runs=_summed([sample for each in profiles for sample in each.runs], "runs"),
        kernels=_summed([sample for each in profiles for sample in each.kernels], "calls"),
    )


def _short(profile: ProfileData) -> str:
    return profile.model.canonical_digest.removeprefix("sha256:")[:12]


def _summed(samples: Iterable[Any], count: str) -> tuple[Any, ...]:
    """Samples that differ in ``count`` and seconds alone added up; sorted, so that order never shows."""
    merged: dict[bytes, Any] = {}
    for sample in samples:
        key = msgspec.json.encode(msgspec.structs.replace(sample, seconds=0.0, **{count: 1}), order="sorted")
        earlier = merged.get(key)
        if earlier is not None:
            sample = msgspec.structs.replace(
                sample,
                seconds=earlier.seconds + sample.seconds,
                **{count: getattr(earlier, count) + getattr(sample, count)},
            )
        merged[key] = sample
    return tuple(merged[key] for key in sorted(merged))


def write_profile(path: Path, profile: ProfileData) -> None:
    """Write a profile, atomically. Raises StorageError."""
    data = msgspec.json.format(msgspec.json.encode(profile, order="sorted"), indent=2) + b"\n"
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def read_profile(path: Path) -> ProfileData:
    """A profile from its file. Raises ProfileDataError for one that is damaged, truncated or too new."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileDataError(
            f"The profile {str(path)!r} cannot be read: {error.strerror or error}."
        ) from error
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise ProfileDataError(
                f"The profile {path.name} has schema {version}; this Assay reads up to {SCHEMA_VERSION}.",
                hint="Upgrade Assay, or record the profile again with this version.",
            )
        return msgspec.json.decode(data, type=ProfileData)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProfileDataError(
            f"The profile {path.name} is damaged or truncated: {error}.", hint="Record it again."
        ) from error


def profile_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a profile, generated from the types above."""
    return published_schema(ProfileData, "Assay profile data", SCHEMA_VERSION)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(profile_schema(), indent=2, sort_keys=True) + "\n")
