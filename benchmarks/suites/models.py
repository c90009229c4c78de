"""Models: seconds of a call, and of an item where several go in at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suites._settings import SETTINGS
from suites._suite import RUN_ID, Samples, Suite, built, found, missing_skips, of_processes, skip, tracked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assay.compile.build import BuildResult
    from assay.results.record import Record

__all__ = ["Batches", "Models", "measure"]

_BATCH = "batch"


def measure(
    build: BuildResult, threads: int, *, engines: tuple[str, ...] = ("assay",), sizes: Mapping[str, int] = {}
) -> list[Record]:
    """Records of a model in fresh processes."""
    from assay.benchmarks.harness import bench

    with missing_skips():
        return bench(
            build.canonical.spec,
            build.path,
            build.canonical,
            run_id=RUN_ID,
            engines_to_run=engines,
            threads=threads,
            rounds=SETTINGS.processes,
            seconds_per_round=SETTINGS.seconds,
            sizes=sizes,
        )


class Models(Suite):
    """At the default sizes of symbolic dimensions."""

    param_names = ("model", "target", "scheme", "profile", "threads")
    params = (
        SETTINGS.models,
        SETTINGS.targets,
        SETTINGS.schemes,
        SETTINGS.profiles,
        SETTINGS.threads,
    )

    def setup(self, model: str, target: str, scheme: str, profile: str, threads: int) -> None:
        """Build."""
        self.build = built(model, target, scheme, profile)

    @tracked("seconds", rounds=SETTINGS.rounds)
    def track_latency(self, model: str, target: str, scheme: str, profile: str, threads: int) -> Samples:
        """Seconds of a call."""
        return of_processes(measure(self.build, threads), "latency")


class Batches(Suite):
    """Models with a symbolic dimension called batch, at several sizes of it."""

    param_names = ("model", "target", "scheme", "profile", "threads", "batch")
    params = (*Models.params, SETTINGS.batches)

    def setup(self, model: str, target: str, scheme: str, profile: str, threads: int, batch: int) -> None:
        """Build; skips models without such a dimension."""

        if _BATCH not in found(model).default_sizes():
            skip(f"{model} has no symbolic dimension called {_BATCH}")
        self.build = built(model, target, scheme, profile)

    @tracked("seconds", rounds=SETTINGS.rounds)
    def track_time_per_item(
        self, model: str, target: str, scheme: str, profile: str, threads: int, batch: int
    ) -> Samples:
        """Seconds of a call over the size of the batch: the inverse of throughput, as less is better."""
        records = measure(self.build, threads, sizes={_BATCH: batch})
        return of_processes(records, "latency", change=lambda seconds: seconds / batch)
