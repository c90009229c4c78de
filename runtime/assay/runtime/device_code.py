"""What is known of an artifact's code for a GPU without running it: a JSON file beside the code.

The figures are read from the compiled code: they are the compiler's, not estimates.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec

from assay.errors import ArtifactError, ArtifactVersionError

__all__ = [
    "FILE",
    "SCHEMA_VERSION",
    "CodeFormat",
    "DeviceCode",
    "KernelResources",
    "decode_device_code",
    "encode_device_code",
]

SCHEMA_VERSION = 1
FILE = "device_code.json"

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in the file: immutable, and strict about unknown fields."""


class CodeFormat(StrEnum):
    """What a file of device code is."""

    CUBIN = "cubin"  # machine code for one compute capability
    PTX = "ptx"  # assembly that the CUDA driver compiles for newer ones
    CODE_OBJECT = "code-object"  # AMD's ELF file, for one architecture
    CUDA_C = "cuda-c"
    MSL = "msl"
    OPENCL_C = "opencl-c"
    WGSL = "wgsl"
    LLVM_ASSEMBLY = "assembly"


class KernelResources(Struct, frozen=True, kw_only=True):
    """What one kernel takes of a compute unit, as the compiler says; None where it does not.

    ``registers`` (32 bits each) and ``stack_bytes`` are those of a thread, ``scalar_registers`` those of a
    wave, ``shared_bytes`` those of a block. ``spills``: registers (ROCm) or bytes (CUDA) of a thread that
    did not fit, and went to memory. ``maximum_threads``: the largest block that it may be launched with.
    """

    registers: Count | None = None
    scalar_registers: Count | None = None
    accumulator_registers: Count | None = None
    shared_bytes: Count = 0
    stack_bytes: Count | None = None
    spills: Count | None = None
    maximum_threads: Count | None = None
    wave_size: Count | None = None


class DeviceCode(Struct, frozen=True, kw_only=True):
    """The code of all kernels of a level: its files by format, its compiler, and each kernel's resources.

    ``files`` are names in the folder of this file. ``checks`` says in words what has been found out about the
    code without a device.
    """

    api: Name
    architecture: str | None
    compiler: Name
    files: dict[CodeFormat, Name]
    kernels: dict[str, KernelResources]
    checks: tuple[str, ...] = ()


class _File(Struct, frozen=True, kw_only=True):
    schema_version: int = SCHEMA_VERSION
    code: DeviceCode


class _Version(msgspec.Struct):
    schema_version: int


def encode_device_code(code: DeviceCode) -> bytes:
    """JSON of the description: UTF-8, indented, in one fixed order, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(_File(code=code), order="sorted"), indent=2) + b"\n"


def decode_device_code(data: bytes) -> DeviceCode:
    """The description from its JSON.

    Raises ArtifactVersionError for a newer schema, ArtifactError for damage.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise ArtifactVersionError(
                f"Device code is described in schema {version}; this Assay reads up to {SCHEMA_VERSION}.",
                hint="Upgrade Assay, or build the artifact again with this version.",
            )
        return msgspec.json.decode(data, type=_File).code
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"The description of the device code is damaged: {error}") from None
