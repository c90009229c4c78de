"""Language models: time to first token, and seconds a token of prefill and of decode."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from suites._settings import SETTINGS
from suites._suite import RUN_ID, Samples, Suite, built, missing_skips, of_processes, once, tracked

if TYPE_CHECKING:
    from assay.compile.build import BuildResult
    from assay.results.record import Record

__all__ = ["LanguageModels", "measure_language"]


def measure_language(build: BuildResult, threads: int, engines: tuple[str, ...] = ("assay",)) -> list[Record]:
    """Records of a language model in fresh processes."""
    from assay.benchmarks.llm.files import language_files
    from assay.benchmarks.llm.harness import LanguageWorkload, bench_language
    from assay.benchmarks.llm.onnx_runtime import OnnxRuntimeDecoder, with_fast_products

    workload = LanguageWorkload(
        prompt=SETTINGS.prompt_tokens, new_tokens=SETTINGS.new_tokens, rounds=SETTINGS.processes
    )
    files = language_files(build.canonical.spec, build.path, build.canonical.path)
    with missing_skips(), tempfile.TemporaryDirectory() as folder:
        if OnnxRuntimeDecoder.name in engines:
            files = with_fast_products(files, Path(folder))
        return bench_language(
            build.canonical.spec,
            files,
            workload,
            run_id=RUN_ID,
            engines_to_run=engines,
            threads=threads,
        )


class LanguageModels(Suite):
    """One sequence; the three figures come of the same processes."""

    param_names = ("model", "target", "scheme", "threads")
    params = (SETTINGS.language_models, SETTINGS.targets, SETTINGS.schemes, SETTINGS.threads)

    def setup(self, model: str, target: str, scheme: str, threads: int) -> None:
        """Build."""
        self.build = built(model, target, scheme)

    def _measured(self, figure: str, *key: object) -> list[Record]:
        return once(figure, ["language", *key], lambda: measure_language(self.build, int(str(key[-1]))))

    @tracked("seconds", rounds=SETTINGS.rounds)
    def track_time_to_first_token(self, model: str, target: str, scheme: str, threads: int) -> Samples:
        """Seconds from the prompt to the first token."""
        return of_processes(self._measured("first", model, target, scheme, threads), "ttft")

    @tracked("seconds", rounds=SETTINGS.rounds)
    def track_prefill_time_per_token(self, model: str, target: str, scheme: str, threads: int) -> Samples:
        """Seconds to the first token over the tokens of the prompt: the inverse of the rate."""
        records = self._measured("prefill", model, target, scheme, threads)
        return of_processes(records, "prefill", change=lambda rate: 1 / rate)

    @tracked("seconds", rounds=SETTINGS.rounds)
    def track_decode_time_per_token(self, model: str, target: str, scheme: str, threads: int) -> Samples:
        """Seconds of each token after the prompt: the inverse of the rate."""
        records = self._measured("decode", model, target, scheme, threads)
        return of_processes(records, "decode", change=lambda rate: 1 / rate)
