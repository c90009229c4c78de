"""Models by name: the zoo, models and providers of installed plug-ins, and files from the user's disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

from assay.errors import UnknownNameError
from assay.models.spec import DecoderProvider, ModelSpec
from assay.registry import Registry

__all__ = ["SpecMaker", "find_model", "models", "providers"]

SpecMaker: TypeAlias = Callable[[str], ModelSpec]
"""A function from what follows ``PROVIDER:`` in a model's name to its specification."""


@cache
def models() -> Registry[ModelSpec]:
    """The zoo and the models of plug-ins.

    A plug-in is an entry point of the group ``assay.models`` that is a ``ModelSpec``, or a function without
    arguments that gives several.
    """
    from assay.models.zoo import ZOO

    registry: Registry[ModelSpec] = Registry("model")
    for spec in ZOO:
        registry.add(spec.name, spec)
    for entry in entry_points(group="assay.models"):
        plugged = entry.load()
        specs: Iterable[ModelSpec] = (plugged,) if isinstance(plugged, ModelSpec) else plugged()
        for spec in specs:
            registry.add(spec.name, spec)
    return registry


@cache
def providers() -> Registry[SpecMaker]:
    """What makes specifications of models that are not registered by name.

    A plug-in is an entry point of the group ``assay.providers``: under the name ``hub``, it makes the model
    that users call ``hub:REFERENCE``. It is a function from the reference to a ``ModelSpec``.
    """
    registry: Registry[SpecMaker] = Registry("provider")
    registry.add("onnx", _from_file)
    for entry in entry_points(group="assay.providers"):
        registry.add(entry.name, entry.load())
    return registry


def find_model(name_or_path: str) -> ModelSpec:
    """The model of a name, of a file or folder, or of ``PROVIDER:REFERENCE``.

    A file is ONNX or GGUF; a folder is Hugging Face's. ORGANIZATION/MODEL that is neither is looked for in
    the local hub directory (``sources.hub``). The tokenizer of a registered decoder is made ready.

    Raises UnknownNameError for what is none of these, ModelError (or its like) for a file or folder that
    holds no valid model.
    """
    if name_or_path in models():
        return _with_text_side(models()[name_or_path])
    path = Path(name_or_path)
    prefix, colon, reference = name_or_path.partition(":")
    if colon and prefix in providers() and not path.is_file():
        return providers()[prefix](reference)
    if path.suffix in (".onnx", ".gguf") or path.is_file():
        return _from_file(name_or_path)
    if path.is_dir():
        return _from_folder(path)
    return _from_hub(name_or_path)


def _with_text_side(spec: ModelSpec) -> ModelSpec:
    """``spec``, with its tokenizer where its provider has to make that; listing models must not."""
    if spec.decoder is None or spec.decoder.tokenizer is not None:
        return spec
    if not isinstance(spec.provider, DecoderProvider):
        return spec
    return replace(spec, decoder=spec.provider.decoder())


def _from_file(path: str) -> ModelSpec:
    if Path(path).suffix == ".gguf" or _begins_as_gguf(Path(path)):
        from assay.models.sources.specs import spec_from_gguf

        return spec_from_gguf(Path(path))
    from assay.models.file_spec import spec_from_file

    return spec_from_file(Path(path))


def _begins_as_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _from_folder(path: Path, name: str | None = None) -> ModelSpec:
    from assay.models.sources.specs import spec_from_folder

    return spec_from_folder(path, name)


def _from_hub(name: str) -> ModelSpec:
    from assay.models.sources.hub import hub_directory, hub_snapshot, is_hub_name

    folder = hub_snapshot(name)
    if folder is not None:
        return _from_folder(folder, name.partition("/")[2])
    error = UnknownNameError("model", name, models())
    if is_hub_name(name):
        error.hint = f"It is not in the local hub {str(hub_directory())!r} either; nothing is downloaded."
    raise error
