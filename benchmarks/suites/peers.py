"""Our time over each peer's, both measured in turns: a ratio survives a change of machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suites._settings import SETTINGS
from suites._suite import Samples, Suite, built, once, skip, tracked
from suites.language import measure_language
from suites.models import measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.results.record import Record

__all__ = ["LanguagePeers", "Peers", "ratios"]

_OURS = "assay"


def ratios(records: Sequence[Record], metric: str, peer: str) -> Samples:
    """Our time over the peer's in each round, below 1 where ours is faster; of rates the inverse."""
    from assay.results.statistics import round_medians

    of = {record.engine: round_medians(record.rounds()) for record in records if record.metric == metric}
    unit = next(record.unit for record in records if record.metric == metric)
    above, below = (of[_OURS], of[peer]) if unit == "s" else (of[peer], of[_OURS])
    return Samples(samples=[ours / theirs for ours, theirs in zip(above, below, strict=True)], number=1)


class Peers(Suite):
    """Latency."""

    param_names = ("model", "target", "threads", "peer")
    params = (SETTINGS.models, SETTINGS.targets, SETTINGS.threads, SETTINGS.peers)

    def setup(self, model: str, target: str, threads: int, peer: str) -> None:
        """Build; skips peers that are not installed or cannot run the model."""
        from assay.benchmarks.harness import unavailable_engines

        self.build = built(model, target)
        reasons = unavailable_engines(
            [peer], self.build.canonical.spec.name, self.build.path, self.build.canonical
        )
        if reasons:
            skip(f"{peer} cannot run {model}: {reasons[peer]}")

    @tracked("ours / peer", rounds=SETTINGS.rounds)
    def track_latency_ratio(self, model: str, target: str, threads: int, peer: str) -> Samples:
        """Our latency over the peer's."""
        return ratios(measure(self.build, threads, engines=(_OURS, peer)), "latency", peer)


class LanguagePeers(Suite):
    """Time to first token, and of each token after it; both figures come of the same processes."""

    param_names = ("model", "target", "threads", "peer")
    params = (SETTINGS.language_models, SETTINGS.targets, SETTINGS.threads, SETTINGS.language_peers)

    def setup(self, model: str, target: str, threads: int, peer: str) -> None:
        """Build; skips peers that are not installed or cannot run the model."""
        from assay.benchmarks.llm import language_engines
        from assay.benchmarks.llm.files import language_files

        self.build = built(model, target)
        files = language_files(self.build.canonical.spec, self.build.path, self.build.canonical.path)
        reason = language_engines()[peer].unavailable(files)
        if reason is not None:
            skip(f"{peer} cannot run {model}: {reason}")

    def _measured(self, figure: str, model: str, target: str, threads: int, peer: str) -> list[Record]:
        key = ["peers", model, target, threads, peer]
        return once(figure, key, lambda: measure_language(self.build, threads, (_OURS, peer)))

    @tracked("ours / peer", rounds=SETTINGS.rounds)
    def track_first_token_ratio(self, model: str, target: str, threads: int, peer: str) -> Samples:
        """Our time to first token over the peer's."""
        return ratios(self._measured("first", model, target, threads, peer), "ttft", peer)

    @tracked("ours / peer", rounds=SETTINGS.rounds)
    def track_decode_ratio(self, model: str, target: str, threads: int, peer: str) -> Samples:
        """Our time of a token over the peer's."""
        return ratios(self._measured("decode", model, target, threads, peer), "decode", peer)
