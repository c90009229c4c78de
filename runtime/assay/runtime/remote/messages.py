"""What hosts and devices say to each other: MessagePack, typed, unknown fields refused."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

__all__ = [
    "VERSION",
    "Answer",
    "Busy",
    "Content",
    "Digest",
    "Done",
    "FileInfo",
    "Name",
    "Offer",
    "Ping",
    "Read",
    "Refused",
    "Request",
    "Run",
    "Stored",
    "Upload",
    "Wanted",
    "Welcome",
    "Working",
]

VERSION = 1

Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of every message: immutable, tagged with its name, strict about unknown fields."""


class FileInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file: SHA-256 (hexadecimal) and size in bytes of its content."""

    sha256: Digest
    bytes: Bytes


class Welcome(_Struct, frozen=True, kw_only=True):
    """A device that is free: what it says of itself.

    ``machine``, ``system`` and ``features`` are as ``assay.runtime.cpu.Cpu`` has them. ``emulator``: what
    plays the device, None where it is real. ``tasks``: what can be run.
    """

    name: Name
    cpu: Text
    machine: Name
    system: Name
    features: tuple[Name, ...]
    emulator: Text | None
    tasks: tuple[Name, ...]
    assay_version: Name


class Busy(_Struct, frozen=True, kw_only=True):
    """A device that somebody else uses, for so many ``seconds`` already."""

    user: Text
    seconds: float


class Offer(_Struct, frozen=True, kw_only=True):
    """Contents that the host is going to need; the answer is Wanted."""

    contents: tuple[FileInfo, ...]


class Wanted(_Struct, frozen=True, kw_only=True):
    """Those of an offer that the device does not have."""

    digests: tuple[Digest, ...]


class Upload(_Struct, frozen=True, kw_only=True):
    """A content, which follows in frames of data; the answer is Stored."""

    content: FileInfo


class Stored(_Struct, frozen=True, kw_only=True):
    """The content came whole."""


class Run(_Struct, frozen=True, kw_only=True):
    """Run ``task`` in a fresh process, in an empty folder with ``files``, and give it ``request`` on stdin.

    Answers are Working, as long as it takes, and Done.
    """

    task: Name
    request: bytes
    files: dict[Name, FileInfo]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=86400)]


class Working(_Struct, frozen=True, kw_only=True):
    """The task is not done yet."""


class Done(_Struct, frozen=True, kw_only=True):
    """How the task ended: the ``status`` of its process (negative: by a signal), and the files that it made.

    ``message`` is the last line that it wrote to stderr. ``expired``: it was ended because its time was up.
    """

    status: int
    message: Text
    expired: bool
    files: dict[Name, FileInfo]


class Read(_Struct, frozen=True, kw_only=True):
    """A file that the last task made; the answer is Content, and then frames of data."""

    name: Name


class Content(_Struct, frozen=True, kw_only=True):
    """What follows in frames of data."""

    content: FileInfo


class Refused(_Struct, frozen=True, kw_only=True):
    """A request that the device does not carry out."""

    message: Text


class Ping(_Struct, frozen=True, kw_only=True):
    """The host is still there; the answer is Working."""


Request: TypeAlias = Offer | Upload | Run | Read | Ping
Answer: TypeAlias = Welcome | Busy | Wanted | Stored | Working | Done | Content | Refused
