"""The build cache: canonical models and artifacts by a key of everything that they are made from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.compile import stamps
from assay.errors import AssayError, StorageError
from assay.models.export import CanonicalModel, export_canonical
from assay.models.export.interface import read_outputs
from assay.models.export.safe_load import external_files
from assay.models.providers.onnx_file import OnnxFile
from assay.progress import Progress

if TYPE_CHECKING:
    from assay.models.spec import ModelSpec

__all__ = ["BuildCache", "default_cache_folder", "installed_versions", "source_digest"]

_DIGESTS = "digests.json"
_EXPORT_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "torch", "transformers")


def default_cache_folder() -> Path:
    """Where builds are kept unless told otherwise: the user's cache folder of this platform."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("assay")) / "builds"


def installed_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of ``names`` that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def source_digest(package: str) -> str:
    """SHA-256 over the source files of an assay package: a change of code is a change of key."""
    import importlib

    hasher = hashlib.sha256()
    for root in sorted(importlib.import_module(package).__path__):
        for path in sorted(Path(root).rglob("*.py")):
            hasher.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()


def key_of(parts: Any) -> str:
    """A key from anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class BuildCache:
    """Entries below one folder. Several processes may use it at once: each entry is made under a lock."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_cache_folder()

    @contextmanager
    def locked(self, kind: str, key: str) -> Iterator[Path]:
        """The folder of one entry, for this process alone until the block ends."""
        import filelock

        path = self.folder / kind / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_suffix(".lock")):
                yield path
        except OSError as error:
            raise StorageError(
                f"The build cache {self.folder} cannot be written: {error.strerror or error}.",
                hint="Choose another folder with --cache.",
            ) from error

    def canonical(self, spec: ModelSpec, progress: Progress) -> CanonicalModel:
        """The canonical form of a model; a registered one is exported once."""
        if isinstance(spec.provider, OnnxFile):
            return self._export_by_content(spec, spec.provider.path.resolve(), progress)
        with self.locked("canonical", _export_key(spec)) as folder:
            earlier = _read_canonical(spec, folder)
            if earlier is not None:
                return earlier
            exported = export_canonical(spec, folder, progress=progress)
            known = {"digests": _digests(exported), "files": _file_digests(folder)}
            (folder / _DIGESTS).write_text(json.dumps(known))
            stamps.keep_stamps(folder.with_suffix(stamps.SUFFIX), folder)
            return exported

    def _export_by_content(self, spec: ModelSpec, source: Path, progress: Progress) -> CanonicalModel:
        """Export a user's file into a folder named after the result: others may read while it changes."""
        import tempfile

        record = self.folder / "sources" / key_of([_export_key(spec), str(source)])
        earlier = self._exported(spec, stamps.unchanged_note(record, source))
        if earlier is not None:
            return earlier
        before = _source_stamps(source)
        with self.locked("canonical", "scratch") as beside:
            scratch = Path(tempfile.mkdtemp(prefix=".export-", dir=beside.parent))
        try:
            exported = export_canonical(spec, scratch, progress=progress)
            with self.locked("canonical", _short(exported.digest)) as folder:
                if _file_digests(folder) != _file_digests(scratch):
                    shutil.rmtree(folder, ignore_errors=True)
                    scratch.replace(folder)
                stamps.keep_stamps(folder.with_suffix(stamps.SUFFIX), folder)
                if before is not None:
                    stamps.keep_stamps(record, source, json.dumps(_digests(exported)), files=before)
            return replace(exported, path=folder / exported.path.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _exported(self, spec: ModelSpec, note: str | None) -> CanonicalModel | None:
        """What ``note`` says that came of a user's file; None without it, or where that is not as it was."""
        if note is None:
            return None
        try:
            digests = json.loads(note)
            with self.locked("canonical", _short(digests["digest"])) as folder:
                whole = stamps.unchanged_note(folder.with_suffix(stamps.SUFFIX), folder) is not None
                return _opened(spec, folder, digests) if whole else None
        except (ValueError, KeyError, TypeError):
            return None


def _source_stamps(path: Path) -> dict[str, stamps.Stamp] | None:
    """Stamps of a user's file and its external data; None where the export will say what is wrong."""
    try:
        return stamps.stamps_of(path, external_files(path))
    except (OSError, ValueError):
        return None


def _export_key(spec: ModelSpec) -> str:
    """A key of all that an export depends on but the content of a user's file."""
    return key_of([_described(spec), _code_digests(spec), installed_versions(_EXPORT_TOOLS)])


def _short(digest: str) -> str:
    return digest.partition(":")[2][:32]


def _digests(canonical: CanonicalModel) -> dict[str, str]:
    return {"source_digest": canonical.source_digest, "digest": canonical.digest}


def _described(spec: ModelSpec) -> str:
    """What a specification says, without what differs between processes: addresses, the order of a set."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(replace(spec, tags=frozenset())))


def _code_digests(spec: ModelSpec) -> list[str]:
    """Digests of the code that makes the model: Assay's, and the modules that a plug-in brings."""
    made_by = [type(spec.provider), spec.representative_inputs, *vars(spec.provider).values()]
    modules = {getattr(item, "__module__", None) for item in made_by if callable(item)}
    paths = {getattr(sys.modules.get(name or ""), "__file__", None) for name in modules}
    own = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths if path]
    return [source_digest("assay.models"), *sorted(own)]


def _file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of an export by name."""
    digests = {}
    for path in sorted(folder.glob("canonical.*")):
        with path.open("rb") as stream:
            digests[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _read_canonical(spec: ModelSpec, folder: Path) -> CanonicalModel | None:
    """An earlier export, or None where it is not there or not whole."""
    try:
        known = json.loads((folder / _DIGESTS).read_text())
        record = folder.with_suffix(stamps.SUFFIX)
        if stamps.unchanged_note(record, folder) is None:
            if known["files"] != _file_digests(folder):
                return None
            stamps.keep_stamps(record, folder)
        return _opened(spec, folder, known["digests"])
    except (OSError, ValueError, KeyError, TypeError, AssayError, RuntimeError):
        return None


def _opened(spec: ModelSpec, folder: Path, digests: dict[str, str]) -> CanonicalModel:
    import onnx

    path = folder / "canonical.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    found = {item.name: item for item in spec.inputs}
    return CanonicalModel(
        spec=replace(spec, inputs=tuple(found[value.name] for value in graph.input)),
        path=path,
        outputs=read_outputs(graph),
        **digests,
    )
