"""Artifacts on disk, a directory or the same in one file: written atomically, checked when opened."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from assay.errors import ArtifactError, StorageError
from assay.runtime import packing
from assay.runtime.manifest import FileDigest, Manifest, decode_manifest, encode_manifest
from assay.runtime.packing import CHUNK, Region

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MANIFEST", "MANIFEST_DIGEST", "WEIGHTS", "Artifact", "open_artifact", "write_artifact"]

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
WEIGHTS = "weights.safetensors"
_AGAIN = "Build the artifact again, or fetch a fresh copy."


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An artifact that was opened: where it is, its manifest, and where each of its files lies."""

    location: Path
    manifest: Manifest
    packed: bool
    regions: Mapping[str, Region]

    def read(self, name: str) -> bytes:
        """The content of one file. Raises ArtifactError when there is no such file."""
        region = self._region(name)
        with region.path.open("rb") as stream:
            stream.seek(region.offset)
            return stream.read(region.size)

    def path(self, name: str) -> Path:
        """An absolute path of one file; in the one-file form a copy in a private cache folder."""
        return self.copied(name) if self.packed else self._region(name).path.absolute()

    def copied(self, name: str) -> Path:
        """The path of a copy of one file in a private cache folder, a different one for every content."""
        from assay.runtime.libraries import extracted

        return extracted(self._region(name), self.manifest.files[name].sha256, PurePosixPath(name).name)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Weights by name in the order of the manifest, mapped copy-on-write and 64-byte aligned.

        bfloat16 comes as uint16 with the same bits. Raises ArtifactError when they differ from the manifest.
        """
        from assay.runtime.weights import map_weights, read_header

        if not self.manifest.weights:
            return {}
        region = self._region(WEIGHTS)
        held = {info.name: (info.dtype, info.shape, info.size) for info in read_header(region)}
        named = {weight.name: (weight.dtype, weight.shape, weight.bytes) for weight in self.manifest.weights}
        if held != named:
            wrong = sorted(name for name in held.keys() | named.keys() if held.get(name) != named.get(name))
            raise ArtifactError(f"{WEIGHTS} and the manifest differ in {', '.join(wrong[:3])}.", hint=_AGAIN)
        tensors = map_weights(region)
        return {weight.name: tensors[weight.name] for weight in self.manifest.weights}

    def _region(self, name: str) -> Region:
        try:
            return self.regions[name]
        except KeyError:
            raise ArtifactError(f"The artifact {self.location.name} has no file {name}.") from None


def write_artifact(
    destination: Path,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    *,
    packed: bool = False,
    digests: Mapping[str, FileDigest] | None = None,
) -> Path:
    """Write an artifact of ``files`` (relative names to bytes, or to files to copy) at ``destination``.

    ``manifest.files`` is filled in here. An artifact that is already there is replaced in one step; anything
    else that is there is left alone and raises StorageError, as does a disk that is full or not writable.
    Where files do not have the ``digests`` that they must have, ArtifactError is raised and nothing written.
    The same arguments give the same bytes. Returns ``destination``.
    """
    from assay.runtime.atomic import replace_directory, replace_file  # only writers need it

    for name in files:
        problem = _name_problem(name)
        if problem:
            raise ValueError(f"file name {name!r} {problem}")
    _refuse_foreign(destination, packed=packed)
    if packed:
        found = {name: _digest_source(files[name]) for name in sorted(files)}
        _refuse_others(found, digests)
        with replace_file(destination) as temporary, temporary.open("r+b") as stream:
            sealed = _seal(manifest, found)
            packing.pack(stream, [*((name, files[name]) for name in sorted(files)), *sealed.items()])
    else:
        with replace_directory(destination) as folder:
            found = {name: _copy(files[name], folder / name) for name in sorted(files)}
            _refuse_others(found, digests)
            for name, content in _seal(manifest, found).items():
                (folder / name).write_bytes(content)
    return destination


def open_artifact(path: Path | str, *, verify: bool = True) -> Artifact:
    """Open the artifact at ``path``, a directory or a one-file artifact, and check that it is whole.

    Checks the manifest against its digest and the list of files against the manifest; with ``verify``, the
    default, also the digest of every file. Raises ArtifactError naming the file that is missing, damaged or
    not listed, and ArtifactVersionError for a manifest of a newer schema.
    """
    path = Path(path)
    packed = path.is_file()
    if packed:
        regions = packing.regions(path)
    elif path.is_dir():
        regions = _walk(path)
    else:
        raise ArtifactError(f"There is no artifact at {path}.", hint="assay build MODEL -o PATH makes one.")
    manifest = _read_manifest(path, regions)
    _check_names(path, manifest, regions)
    artifact = Artifact(location=path, manifest=manifest, packed=packed, regions=regions)
    for name, expected in manifest.files.items():
        if verify and _digest(regions[name]) != expected.sha256:
            raise ArtifactError(f"{name} in {path.name} is damaged: its digest differs.", hint=_AGAIN)
    return artifact


def _seal(manifest: Manifest, digests: dict[str, FileDigest]) -> dict[str, bytes]:
    """The manifest with digests filled in, and the digest of that in the form that sha256sum reads."""
    content = encode_manifest(msgspec.structs.replace(manifest, files=digests))
    line = f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n"
    return {MANIFEST: content, MANIFEST_DIGEST: line.encode()}


def _refuse_others(found: Mapping[str, FileDigest], expected: Mapping[str, FileDigest] | None) -> None:
    for name, digest in found.items():
        if expected is not None and digest != expected.get(name):
            raise ArtifactError(f"{name} is damaged: its digest differs.", hint=_AGAIN)


def _copy(content: bytes | Path, destination: Path) -> FileDigest:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        destination.write_bytes(content)
        return FileDigest(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    hasher, size = hashlib.sha256(), 0
    with content.open("rb") as source, destination.open("wb") as target:
        while chunk := source.read(CHUNK):
            hasher.update(chunk)
            target.write(chunk)
            size += len(chunk)
    return FileDigest(sha256=hasher.hexdigest(), bytes=size)


def _digest_source(content: bytes | Path) -> FileDigest:
    if isinstance(content, bytes):
        return FileDigest(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    region = Region(path=content, offset=0, size=content.stat().st_size)
    return FileDigest(sha256=_digest(region), bytes=region.size)


def _digest(region: Region) -> str:
    # Read, not mapped: pages that are mapped only to be hashed would count towards the process's memory.
    hasher = hashlib.sha256()
    left = region.size
    buffer = memoryview(bytearray(CHUNK))
    with region.path.open("rb", buffering=0) as stream:
        stream.seek(region.offset)
        while left:
            count = stream.readinto(buffer[: min(left, CHUNK)])
            if not count:
                break
            hasher.update(buffer[:count])
            left -= count
    return hasher.hexdigest()


def _name_problem(name: str) -> str | None:
    """What is wrong with the relative name of a file of an artifact, if anything."""
    if name in (MANIFEST, MANIFEST_DIGEST):
        return "is reserved"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "is not a plain relative path"
    if any(character in "\\:" or not character.isprintable() for character in name):
        return "has characters that are not allowed"
    return None


def _refuse_foreign(destination: Path, *, packed: bool) -> None:
    """Raise StorageError when ``destination`` holds something that is not an artifact of the same form."""
    if not destination.exists():
        return
    if packed:
        ours = destination.is_file() and (_is_empty(destination) or _is_packed(destination))
    else:
        ours = destination.is_dir() and (_is_empty(destination) or (destination / MANIFEST).is_file())
    if not ours:
        raise StorageError(
            f"{destination} exists and is not such an artifact, so it is left alone.",
            hint="Choose another destination, or remove it yourself.",
        )


def _is_empty(path: Path) -> bool:
    return path.stat().st_size == 0 if path.is_file() else not any(path.iterdir())


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return False
        stream.seek(max(0, path.stat().st_size - 4096))
        return MANIFEST_DIGEST.encode() in stream.read()


def _walk(root: Path) -> dict[str, Region]:
    """Every file below ``root``; raises ArtifactError for links and for anything else that is not a file."""
    regions: dict[str, Region] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(name + "/")
                elif stat.S_ISREG(status.st_mode):
                    regions[name] = Region(path=root / name, offset=0, size=status.st_size)
                else:
                    raise ArtifactError(f"{name} in {root.name} is a link or a special file.", hint=_AGAIN)
    return regions


def _read_manifest(path: Path, regions: Mapping[str, Region]) -> Manifest:
    contents: dict[str, bytes] = {}
    for name in (MANIFEST, MANIFEST_DIGEST):
        if name not in regions:
            raise ArtifactError(f"{path} is not an artifact: it has no {name}.")
        region = regions[name]
        with region.path.open("rb") as stream:
            stream.seek(region.offset)
            contents[name] = stream.read(region.size)
    content = contents[MANIFEST]
    if contents[MANIFEST_DIGEST] != f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode():
        raise ArtifactError(
            f"{MANIFEST} in {path.name} is damaged: {MANIFEST_DIGEST} holds another digest.", hint=_AGAIN
        )
    return decode_manifest(content)


def _check_names(path: Path, manifest: Manifest, regions: Mapping[str, Region]) -> None:
    for name in manifest.files:
        problem = _name_problem(name)
        if problem:
            raise ArtifactError(f"{MANIFEST} lists a file whose name {name!r} {problem}.")
        if name not in regions:
            raise ArtifactError(f"{name} is missing from {path.name}.", hint=_AGAIN)
        if regions[name].size != manifest.files[name].bytes:
            expected, found = manifest.files[name].bytes, regions[name].size
            raise ArtifactError(
                f"{name} in {path.name} is damaged: it has {found} bytes, not {expected}.", hint=_AGAIN
            )
    extra = sorted(regions.keys() - manifest.files.keys() - {MANIFEST, MANIFEST_DIGEST})
    if extra:
        raise ArtifactError(f"{extra[0]} in {path.name} is not listed in {MANIFEST}.", hint=_AGAIN)
    entries = [entry for level in manifest.levels for entry in level.entries()]
    needed = [name for entry in entries for name in (entry.library, entry.plan)]
    for file in [*needed, manifest.tvm_runtime, WEIGHTS if manifest.weights else None]:
        if file is not None and file not in manifest.files:
            raise ArtifactError(f"{MANIFEST} needs the file {file} but does not list it.")
    weights = {weight.name for weight in manifest.weights}
    symbolic = {dim.name for item in manifest.inputs for dim in item.shape if not isinstance(dim, int)}
    for level in manifest.levels:
        if any(each.sizes.keys() != symbolic for each in level.specializations):
            raise ArtifactError(
                f"{MANIFEST}: code of {level.target.name} is for sizes that are not those of the inputs."
            )
        unknown = sorted({weight for entry in level.entries() for weight in entry.weights} - weights)
        if unknown:
            raise ArtifactError(
                f"{MANIFEST}: {level.target.name} takes the weight {unknown[0]}, which is not listed."
            )
