"""The manifest of an artifact: its types, its JSON form and the JSON Schema generated from them.

The schema is checked in as ``docs/schema/manifest.schema.json``; write it anew with
``python -m assay.runtime.manifest > docs/schema/manifest.schema.json``.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from assay.errors import ArtifactError, ArtifactVersionError
from assay.schema import published_schema

__all__ = [
    "SCHEMA_VERSION",
    "DecoderInfo",
    "Dim",
    "Entry",
    "Execution",
    "FileDigest",
    "Input",
    "Level",
    "Manifest",
    "ModelInfo",
    "Output",
    "OutputError",
    "Quantization",
    "Specialization",
    "SymbolicSize",
    "TargetInfo",
    "Verification",
    "VerifiedCase",
    "Weight",
    "Workspace",
    "decode_manifest",
    "encode_manifest",
    "manifest_schema",
]

SCHEMA_VERSION = 3

Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$", description="sha256:<hex>")]
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
DTypeName: TypeAlias = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"
]
# Kernels take weights of 16 bits that they widen themselves as uint16.
WeightDTypeName: TypeAlias = DTypeName | Literal["bfloat16", "uint16"]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in the manifest: immutable, and strict about unknown fields."""


class SymbolicSize(Struct, frozen=True, kw_only=True):
    """A dimension whose size is given at run time, within ``minimum`` and ``maximum`` (inclusive)."""

    name: Name
    default: Size
    minimum: Size
    maximum: Size


Dim: TypeAlias = Size | SymbolicSize


class Input(Struct, frozen=True, kw_only=True):
    """One input of the entry point, in the order in which it takes them."""

    name: Name
    dtype: DTypeName
    shape: tuple[Dim, ...]


class Output(Struct, frozen=True, kw_only=True):
    """One output; a dimension is a size, or an expression over the symbolic ones such as ``2*batch``."""

    name: Name
    dtype: DTypeName
    shape: tuple[Size | Name, ...]


class Weight(Struct, frozen=True, kw_only=True):
    """One weight tensor. Levels whose packing gives the same bytes share it."""

    name: Name
    dtype: WeightDTypeName
    shape: tuple[Size, ...]
    bytes: Size


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What was compiled. Digests are of the model as it came and of its canonical ONNX."""

    name: Name
    description: str
    licence: str
    weights: Literal["trained", "random"]
    source_digest: Digest
    canonical_digest: Digest


class TargetInfo(Struct, frozen=True, kw_only=True):
    """What code was compiled for; ``features`` are those that a CPU must have, named as in /proc/cpuinfo.

    Code for a GPU has an ``api``, and features as ``DeviceInfo`` names them; ``cpu`` is then the
    architecture, or ``any`` where the driver of the device compiles.
    """

    name: Name
    api: Name | None = None
    triple: Name
    cpu: Name
    features: tuple[Name, ...]


class Entry(Struct, frozen=True, kw_only=True):
    """Where execution starts: a function of ``library``, and its weights in the order in which they go in.

    ``driver`` names what executes it. ``plan``: the launch plan that calls the kernels of ``library``, where
    the driver follows one.
    """

    function: Name
    library: Name
    driver: Name = "tvm-vm"
    plan: Name | None = None
    weights: tuple[Name, ...] = ()


class Specialization(Struct, frozen=True, kw_only=True):
    """Code for one size of some symbolic dimensions; ``sizes`` by the name of the dimension."""

    sizes: Annotated[dict[str, int], msgspec.Meta(min_length=1)]
    entry: Entry


class Execution(StrEnum):
    """Whether code ever ran: on a CPU that has its instructions, under an emulator, or never."""

    NATIVE = "native"
    EMULATED = "emulated"
    NEVER = "never"


class FileDigest(Struct, frozen=True, kw_only=True):
    """Digest and size, in bytes, of one file."""

    sha256: Sha256
    bytes: Size


class VerifiedCase(Struct, frozen=True, kw_only=True):
    """Errors of one output against the reference, at one size of every symbolic dimension.

    ``row_error``, for logits: the root mean square error of a row over the standard deviation of the
    reference's, averaged over the rows.
    """

    sizes: dict[str, int]
    output: Name
    max_absolute_error: float
    max_relative_error: float
    cosine_similarity: float
    absolute_tolerance: float
    relative_tolerance: float
    row_error: float | None = None
    row_tolerance: float | None = None


class Verification(Struct, frozen=True, kw_only=True):
    """The comparison with the reference engine; ``note`` says what else than this code was run, if so."""

    reference: str
    note: str | None = None
    cases: tuple[VerifiedCase, ...] = ()


class Workspace(Struct, frozen=True, kw_only=True):
    """Bytes that a run needs for intermediate results, as planned: at its peak, without weights and outputs.

    At the default and at the maximum sizes of the symbolic dimensions. A run takes the maximum from the
    system, and touches what its sizes need.
    """

    default_bytes: Size
    maximum_bytes: Size


class Level(Struct, frozen=True, kw_only=True):
    """The model compiled for one target.

    ``unscheduled_kernels`` names the kernels that no schedule of ours fits, which run as TVM's plain loops.
    Inputs of the sizes of one of ``specializations`` run its entry, all others ``entry``.
    """

    target: TargetInfo
    executed: Execution
    entry: Entry
    specializations: tuple[Specialization, ...] = ()
    unscheduled_kernels: tuple[Name, ...] = ()
    workspace: Workspace | None = None
    verification: Verification

    def entries(self) -> tuple[Entry, ...]:
        """The entry for all sizes, then those of the specializations."""
        return (self.entry, *(special.entry for special in self.specializations))


class OutputError(Struct, frozen=True, kw_only=True):
    """One output of the quantized model against the model before, both run by the reference engine.

    ``sqnr`` is the ratio of signal to quantization noise in dB; None where there is no noise.
    """

    output: Name
    sqnr: float | None
    cosine_similarity: float
    max_absolute_error: float


class Quantization(Struct, frozen=True, kw_only=True):
    """What the scheme did to the weights that it stores, and what that costs.

    ``tensor_bytes`` are the bytes that the scheme implies for them, scales and zero points included;
    ``elements`` how many weights they hold. ``calibration``: SHA-256 of the recorded inputs that it was
    calibrated on, None where the compiler's own were taken, or none are needed.
    """

    tensors: Size
    elements: Size
    tensor_bytes: Size
    bits_per_weight: float
    errors: tuple[OutputError, ...] = ()
    calibration: str | None = None


class DecoderInfo(Struct, frozen=True, kw_only=True):
    """What a program that generates text has to know of a language model with a paged cache.

    ``cache`` holds ``[pages, layers, 2, kv_heads, page_tokens * head_dim]`` of ``cache_dtype``. ``window``:
    how many tokens back, itself included, a token sees at most in every layer; None where some layer sees
    all. One call takes up to ``max_tokens`` rows of up to ``max_sequences`` sequences, and gives logits for
    up to ``max_rows`` of them. ``tokenizer`` and ``chat_template`` are files of the artifact.
    """

    architecture: Name
    vocabulary: Size
    context_length: Size
    layers: Size
    heads: Size
    kv_heads: Size
    head_dim: Size
    page_tokens: Size
    cache_dtype: Literal["float16", "float32", "int8"]
    window: Size | None = None
    max_tokens: Size
    max_sequences: Size
    max_rows: Size
    bos_ids: tuple[Size, ...] = ()
    eos_ids: tuple[Size, ...] = ()
    add_bos: bool = False
    tokenizer: Name | None = None
    chat_template: Name | None = None


class Manifest(Struct, frozen=True, kw_only=True):
    """Everything about an artifact but its code and weights.

    ``levels`` are ordered from plain to capable: the last one that a CPU has is the one to run. All take
    their ``weights`` from one file; those that run on TVM's virtual machine share one ``tvm_runtime``.
    ``files`` maps the relative path of every other file to its digest. ``decoder`` is there for
    language models with a paged cache, ``quantization`` where the scheme changed how weights are stored. No
    field depends on the time or on the machine of the build, so that the same inputs give the same bytes.
    """

    schema_version: int = SCHEMA_VERSION
    assay_version: Name
    model: ModelInfo
    scheme: Name
    profile: Name
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    weights: tuple[Weight, ...]
    levels: Annotated[tuple[Level, ...], msgspec.Meta(min_length=1)]
    tvm_runtime: Name | None = None
    decoder: DecoderInfo | None = None
    quantization: Quantization | None = None
    files: dict[str, FileDigest] = {}
    tools: dict[str, str]


class _Version(msgspec.Struct):
    schema_version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """JSON of a manifest: UTF-8, indented, keys in one fixed order, a newline at the end.

    Raises ValueError for values that do not come back, such as NaN, which JSON cannot hold.
    """
    data = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"
    try:
        msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError as error:
        raise ValueError(f"the manifest cannot be written: {error}") from None
    return data


def decode_manifest(data: bytes) -> Manifest:
    """A manifest from its JSON.

    Raises ArtifactVersionError when its schema is newer or older than SCHEMA_VERSION, and ArtifactError,
    naming the field, when it is damaged, incomplete or has unknown fields.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"manifest.json is damaged: {error}") from None
    if version > SCHEMA_VERSION:
        raise ArtifactVersionError(
            f"The artifact has manifest schema {version}; this Assay reads up to {SCHEMA_VERSION}.",
            hint="Upgrade Assay, or build the artifact again with this version.",
        )
    if version < 1:
        raise ArtifactError(f"manifest.json is damaged: there is no manifest schema {version}.")
    if version < SCHEMA_VERSION:
        raise ArtifactVersionError(
            f"The artifact has manifest schema {version}; this Assay reads schema {SCHEMA_VERSION} only.",
            hint="Build the artifact again with this version, or run it with the Assay that built it.",
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"manifest.json is damaged: {error}") from None


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of manifest.json, generated from the types above."""
    return published_schema(Manifest, "Assay artifact manifest", SCHEMA_VERSION)


if __name__ == "__main__":
    import json

    sys.stdout.write(json.dumps(manifest_schema(), indent=2, sort_keys=True) + "\n")
