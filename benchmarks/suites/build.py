"""Builds: seconds to compile, to find in the cache, and of a candidate of a search."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from suites._settings import SETTINGS
from suites._suite import Suite, built, found, missing_skips, skip, tracked

__all__ = ["Builds", "Cache", "Tuning"]


class Builds(Suite):
    """From the canonical model to the sealed artifact, verified, with nothing in the cache."""

    param_names = ("model", "target", "scheme", "profile")
    params = (
        [*SETTINGS.models, *SETTINGS.language_models],
        SETTINGS.targets,
        SETTINGS.schemes,
        SETTINGS.profiles,
    )

    @tracked("seconds")
    def track_compile_time(self, model: str, target: str, scheme: str, profile: str) -> float:
        """Seconds; the export is outside. One build: it is far longer than what disturbs it."""
        from assay.compile.build import build_artifact

        with missing_skips(), tempfile.TemporaryDirectory(prefix="assay-build-") as folder:
            result = build_artifact(
                found(model),
                target=target,
                scheme=None if scheme == "default" else scheme,
                profile=profile,
                cache=Path(folder),
            )
        if result.cached or result.build_seconds is None:
            raise ValueError(f"{model} was not built anew")
        return result.build_seconds


class Cache(Suite):
    """A build that the cache has: asv's own timer suffices, as it is short and in one process."""

    param_names = ("model", "target")
    params = (SETTINGS.models, SETTINGS.targets)
    warmup_time = 0.1

    def setup(self, model: str, target: str) -> None:
        """Build, so that the cache has it."""
        built(model, target)

    def time_cache_hit(self, model: str, target: str) -> None:
        """Seconds of a build that is there already."""
        built(model, target)


class Tuning(Suite):
    """A search over the kernels of a model, from an empty journal."""

    param_names = ("model", "target", "threads")
    params = (SETTINGS.models[:1], SETTINGS.targets, SETTINGS.threads)

    @tracked("seconds")
    def track_time_per_candidate(self, model: str, target: str, threads: int) -> float:
        """Seconds to compile, check and measure a candidate, of as many as there is time for."""
        from assay.compile.cache import BuildCache
        from assay.compile.tune.session import tune_model
        from assay.progress import SilentProgress

        with missing_skips(), tempfile.TemporaryDirectory(prefix="assay-tune-") as name:
            folder, spec = Path(name), found(model)
            BuildCache(folder / "cache").canonical(spec, SilentProgress())
            start = time.perf_counter()
            tuned = tune_model(
                spec,
                folder / "records",
                target=target,
                budget=SETTINGS.tuning_seconds,
                threads=threads,
                cache=folder / "cache",
            )
            seconds = time.perf_counter() - start
        if not tuned.result.tried:
            skip(f"{model} has no kernel to search in {SETTINGS.tuning_seconds} s")
        return seconds / tuned.result.tried
