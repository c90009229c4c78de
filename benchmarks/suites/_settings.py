"""What the suites measure: ``suites.toml``, and over it the keys of the file that ASSAY_SUITES names."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

__all__ = ["SETTINGS", "VARIABLE", "Settings", "read_settings"]

VARIABLE = "ASSAY_SUITES"

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of ``suites.toml``, which says what they mean."""

    models: tuple[str, ...]
    language_models: tuple[str, ...]
    kernels: tuple[str, ...]
    targets: tuple[str, ...]
    schemes: tuple[str, ...]
    profiles: tuple[str, ...]
    threads: tuple[_Count, ...]
    batches: tuple[_Count, ...]
    peers: tuple[str, ...]
    language_peers: tuple[str, ...]
    processes: _Count
    rounds: _Count
    seconds: _Seconds
    prompt_tokens: _Count
    new_tokens: _Count
    tuning_seconds: _Seconds


def read_settings(chosen: str | None = None) -> Settings:
    """The settings, with the keys of the file ``chosen`` in place of the defaults.

    A relative path starts at the root of the working tree, where ``asv.conf.json`` is. Raises ValueError,
    naming the file and the key, where it cannot be read or does not fit.
    """
    default = Path(__file__).with_name("suites.toml")
    values = _read(default)
    if chosen:
        path = Path(__file__).resolve().parents[2] / chosen
        values |= _read(path)
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"The settings of the suites in {chosen or default} do not fit: {error}.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"The settings of the suites in {path} cannot be read: {error}.") from error


SETTINGS = read_settings(os.environ.get(VARIABLE))
