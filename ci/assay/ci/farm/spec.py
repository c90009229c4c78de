"""What a farm is to do: a TOML file, checked before anything starts."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

from assay.errors import UsageError

__all__ = ["BenchSettings", "FarmSettings", "FarmSpec", "Matrix", "TuneSettings", "read_spec"]

Names: TypeAlias = tuple[Annotated[str, msgspec.Meta(min_length=1)], ...]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Base of every table: names with hyphens, unknown ones refused."""


class FarmSettings(_Table, frozen=True, kw_only=True):
    """How jobs are run.

    ``retries``: how often a job is tried again. ``job_seconds``: how long one may take. ``most_load``: the
    share of the CPUs that others may keep busy where something is timed, which waits ``idle_seconds``.
    """

    retries: Annotated[int, msgspec.Meta(ge=0, le=20)] = 2
    job_seconds: Seconds = 3600.0
    most_load: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    idle_seconds: Annotated[float, msgspec.Meta(ge=0)] = 300.0


class Matrix(_Table, frozen=True, kw_only=True):
    """Every combination of these is a job; ``jobs`` are kinds: build, bench, tune."""

    models: Annotated[Names, msgspec.Meta(min_length=1)]
    targets: Annotated[Names, msgspec.Meta(min_length=1)] = ("native",)
    schemes: Annotated[Names, msgspec.Meta(min_length=1)] = ("f32",)
    profiles: Annotated[Names, msgspec.Meta(min_length=1)] = ("release",)
    threads: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)] = (1,)
    jobs: Annotated[Names, msgspec.Meta(min_length=1)] = ("build", "bench")


class BenchSettings(_Table, frozen=True, kw_only=True):
    """As the options of ``assay bench``; ``devices`` are of other machines, in place of the worker's own."""

    engines: Annotated[Names, msgspec.Meta(min_length=1)] = ("assay", "onnxruntime")
    rounds: Count = 5
    seconds: Seconds = 0.4
    seed: int = 0
    devices: Names = ()


class TuneSettings(_Table, frozen=True, kw_only=True):
    """As the options of ``assay tune``."""

    budget: Seconds = 60.0
    strategy: str = "table"


class FarmSpec(_Table, frozen=True, kw_only=True):
    """A whole file."""

    matrix: Matrix
    farm: FarmSettings = FarmSettings()
    bench: BenchSettings = BenchSettings()
    tune: TuneSettings = TuneSettings()


def read_spec(path: Path) -> FarmSpec:
    """The specification in the file at ``path``. Raises UsageError that names the field that is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The specification {path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The specification {path} cannot be read: {error}.") from error
    _check_names(path, "", content, FarmSpec)
    try:
        return msgspec.convert(content, FarmSpec)
    except msgspec.ValidationError as error:
        raise UsageError(f"The specification {path} is wrong: {error}.") from error


def _check_names(path: Path, where: str, content: dict[str, Any], table: type[msgspec.Struct]) -> None:
    """Raise UsageError for a name that the table does not have, with the nearest that it has."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(table)}
    for name, value in content.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(fields)}."
            place = f"[{where}] has" if where else "there is"
            raise UsageError(f"{path}: {place} no field {name!r}.", hint=hint)
        if isinstance(value, dict) and isinstance(fields[name], type):
            _check_names(path, name, value, fields[name])
