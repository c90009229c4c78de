"""Models by name: the zoo, models of installed plug-ins, and files from the user's disk."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from assay.errors import UnknownNameError
from assay.models.spec import ModelSpec
from assay.registry import Registry

__all__ = ["find_model", "models"]


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


def find_model(name_or_path: str) -> ModelSpec:
    """The model of a registered name, or one made from an ONNX file.

    Raises UnknownNameError for a name that is neither registered nor a file, ModelError for a file that is
    not a valid ONNX model.
    """
    if name_or_path in models():
        return models()[name_or_path]
    path = Path(name_or_path)
    if path.suffix == ".onnx" or path.is_file():
        from assay.models.file_spec import spec_from_file

        return spec_from_file(path)
    raise UnknownNameError("model", name_or_path, models())
