"""Artifacts: size, load time, peak memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suites._settings import SETTINGS
from suites._suite import Samples, Suite, built, of_processes, once, skip, tracked
from suites.models import measure

if TYPE_CHECKING:
    from assay.results.record import Record

__all__ = ["Artifacts", "Sizes"]


class Sizes(Suite):
    """What lies on disk."""

    param_names = ("model", "target", "scheme", "profile")
    params = (
        [*SETTINGS.models, *SETTINGS.language_models],
        SETTINGS.targets,
        SETTINGS.schemes,
        SETTINGS.profiles,
    )

    def setup(self, model: str, target: str, scheme: str, profile: str) -> None:
        """Build."""
        self.build = built(model, target, scheme, profile)

    @tracked("bytes")
    def track_size(self, model: str, target: str, scheme: str, profile: str) -> int:
        """Bytes of all files of the artifact."""
        from assay.benchmarks.peers.assay_runtime import artifact_bytes

        return artifact_bytes(self.build.path)

    @tracked("bytes")
    def track_workspace(self, model: str, target: str, scheme: str, profile: str) -> int:
        """Bytes of intermediate results that a run at the default sizes is planned to need."""
        from assay.runtime.levels import choose_level

        workspace = choose_level(self.build.manifest).workspace
        if workspace is None:
            skip(f"the plan of {model} does not say what memory it needs")
        return workspace.default_bytes


class Artifacts(Suite):
    """What starting costs in a fresh process; both figures come of the same processes."""

    param_names = ("model", "target", "scheme", "threads")
    params = (SETTINGS.models, SETTINGS.targets, SETTINGS.schemes, SETTINGS.threads)

    def setup(self, model: str, target: str, scheme: str, threads: int) -> None:
        """Build."""
        self.build = built(model, target, scheme)

    def _measured(self, figure: str, *key: object) -> list[Record]:
        return once(figure, ["artifact", *key], lambda: measure(self.build, int(str(key[-1]))))

    @tracked("seconds", rounds=SETTINGS.rounds)
    def track_load_time(self, model: str, target: str, scheme: str, threads: int) -> Samples:
        """Seconds from importing the runtime to a loaded model."""
        return of_processes(self._measured("load", model, target, scheme, threads), "load_time")

    @tracked("bytes", rounds=SETTINGS.rounds)
    def track_peak_memory(self, model: str, target: str, scheme: str, threads: int) -> Samples:
        """Bytes that the process had resident at most, Python and NumPy included."""
        return of_processes(self._measured("memory", model, target, scheme, threads), "peak_memory")
