"""Models by name: the zoo, models and providers of installed plug-ins, and files from the user's disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

from assay.errors import UnknownNameError
from assay.models.spec import ModelSpec
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
    """The model of a registered name, of an ONNX file, or of ``PROVIDER:REFERENCE``.

    Raises UnknownNameError for a name that is none of these, ModelError for a file that is not a valid ONNX
    model.
    """
    if name_or_path in models():
        return models()[name_or_path]
    path = Path(name_or_path)
    prefix, colon, reference = name_or_path.partition(":")
    if colon and prefix in providers() and not path.is_file():
        return providers()[prefix](reference)
    if path.suffix == ".onnx" or path.is_file():
        return _from_file(name_or_path)
    raise UnknownNameError("model", name_or_path, models())


def _from_file(path: str) -> ModelSpec:
    from assay.models.file_spec import spec_from_file

    return spec_from_file(Path(path))
