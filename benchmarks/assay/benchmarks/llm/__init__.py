"""Language models measured as a user feels them: one engine, one file, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.benchmarks.llm.assay_decoder import AssayDecoder
from assay.benchmarks.llm.engine import LanguageEngine, LanguageFiles, LanguageSession
from assay.benchmarks.llm.llama_cpp_python import LlamaCpp
from assay.benchmarks.llm.onnx_runtime import OnnxRuntimeDecoder
from assay.benchmarks.llm.pytorch import PyTorchDecoder
from assay.registry import Registry

__all__ = ["LanguageEngine", "LanguageFiles", "LanguageSession", "language_engines"]


@cache
def language_engines() -> Registry[LanguageEngine]:
    """All engines by name; an entry point of the group ``assay.language_engines`` adds one."""
    from importlib.metadata import entry_points

    registry: Registry[LanguageEngine] = Registry("engine for language models")
    known: tuple[LanguageEngine, ...] = (AssayDecoder(), LlamaCpp(), OnnxRuntimeDecoder(), PyTorchDecoder())
    for engine in (*known, *(entry.load() for entry in entry_points(group="assay.language_engines"))):
        registry.add(engine.name, engine)
    return registry
