from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.decoders.interface import PAGE_TOKENS, DecoderOptions, paged_dims
from assay.compile.targets import targets
from assay.compile.verify import open_reference, run_reference
from assay.runtime.memory import empty_aligned


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """``tiny.py``: small decoders of random numbers."""
    name = "tiny_decoders"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("tiny.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@dataclass(kw_only=True)
class Compiled:
    """A compiled decoder in this process, with a cache of some pages."""

    tiny: Any
    executable: Any
    weights: list[np.ndarray]
    cache: list[np.ndarray]
    machine: Any = None
    bundle: Any = field(default=None)

    def __post_init__(self) -> None:
        import tvm

        self.machine = tvm.relax.VirtualMachine(self.executable, tvm.cpu())
        self.bundle = tuple(tvm.runtime.tensor(array) for array in self.weights)

    def __call__(
        self, parts: Sequence[tuple[np.ndarray, int, Sequence[int]]], rows: Sequence[int] | None = None
    ) -> np.ndarray:
        """Logits for parts of (token ids, tokens in the cache, pages); ``rows``: all where not given."""
        import tvm_ffi

        ids = np.concatenate([tokens for tokens, _, _ in parts])
        positions = np.concatenate([np.arange(past, past + len(tokens)) for tokens, past, _ in parts])
        table = np.zeros((len(parts), max(len(pages) for _, _, pages in parts)), np.int32)
        for row, (_, _, pages) in zip(table, parts, strict=True):
            row[: len(pages)] = pages
        wanted = np.arange(len(ids)) if rows is None else np.array(rows)
        arrays = [
            ids[None].astype(np.int64),
            positions[None].astype(np.int64),
            np.cumsum([0, *(len(tokens) for tokens, _, _ in parts)]).astype(np.int32),
            np.array([past for _, past, _ in parts], np.int32),
            table,
            wanted.astype(np.int64),
        ]
        tensors = [tvm_ffi.from_dlpack(aligned(array)) for array in arrays]
        cache = [tvm_ffi.from_dlpack(array) for array in self.cache]
        result: np.ndarray = self.machine["main"](*tensors, *cache, self.bundle).numpy()
        return result


def aligned(array: np.ndarray) -> np.ndarray:
    copy = empty_aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


Compile = Callable[..., Compiled]


@pytest.fixture
def compile_decoder(tvm: Any, needs_avx2: None, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compile a ``Tiny`` in this process; the cache holds what other sequences may have left there.

    Attention is in plain loops, unless ``scheduled``: its schedule takes seconds to compile.
    """
    from tests.compile.schedules.paged_loops import paged_loops

    from assay.compile.decoders.paged_graph import to_paged
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.passes import paged_cache
    from assay.compile.profiles import profiles

    def run(
        tiny: Any, *, pages: int = 12, profile: str = "release", scheduled: bool = False, **options: Any
    ) -> Compiled:
        if not scheduled:
            monkeypatch.setattr(paged_cache, "paged_attention", lambda problem, context: paged_loops(problem))
        chosen = DecoderOptions(**options)
        dims = paged_dims(tiny.spec, chosen)
        lowered = lower(
            import_onnx(to_paged(tiny.model(), tiny.spec, chosen)),
            target=targets()["x86-64-v3"],
            profile=profiles()[profile],
            sizes={name: dim.default for name, dim in dims.items()},
            maxima={name: dim.maximum for name, dim in dims.items()},
        )
        generator = np.random.default_rng(1)
        planes = (pages, tiny.layers, 2, tiny.kv_heads)
        left = generator.integers(-50, 50, (*planes, PAGE_TOKENS * tiny.head_dim))
        cache = [aligned(left.astype(chosen.cache_dtype))]
        if chosen.cache_dtype == "int8":
            cache.append(aligned(generator.uniform(0, 1, (*planes, PAGE_TOKENS)).astype(np.float32)))
        weights = list(lowered.weights.values())
        return Compiled(tiny=tiny, executable=lowered.executable, weights=weights, cache=cache)

    return run


@pytest.fixture
def reference() -> Callable[[Any, np.ndarray], np.ndarray]:
    """ONNX Runtime's logits of all tokens of one sequence, without a past."""

    def run(tiny: Any, ids: np.ndarray) -> np.ndarray:
        empty = np.zeros((1, tiny.kv_heads, 0, tiny.head_dim), np.float32)
        feeds: dict[str, Any] = {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), np.int64)}
        if not tiny.rotary:
            feeds["position_ids"] = np.arange(len(ids))[None]
        for layer in range(tiny.layers):
            feeds |= {f"past_key_values.{layer}.{kind}": empty for kind in ("key", "value")}
        session = open_reference(tiny.model().SerializeToString())
        logits: np.ndarray = run_reference(session, feeds)["logits"][0]
        return logits

    return run
