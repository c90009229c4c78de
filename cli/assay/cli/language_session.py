"""One `assay bench llm`: build a decoder, measure engines on it, keep and show records."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.artifacts import canonical_behind, is_artifact, spec_from_manifest
from assay.cli.engine_choice import check_plan, choose_engines
from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.benchmarks.llm import LanguageFiles
    from assay.benchmarks.llm.harness import LanguageWorkload
    from assay.models.spec import ModelSpec
    from assay.results.record import Record

__all__ = ["LanguagePlan", "LanguageSession"]


@dataclass(frozen=True, kw_only=True)
class LanguagePlan:
    """What to measure; ``engines`` is None for all that can run the model."""

    names: tuple[str, ...]
    model: str | None
    workload: LanguageWorkload
    threads: tuple[int, ...]
    engines: tuple[str, ...] | None
    seed: int
    targets: tuple[str, ...]
    scheme: str | None
    cache: Path | None
    perplexity: bool = False


@dataclass(frozen=True, kw_only=True)
class _Subject:
    spec: ModelSpec
    files: LanguageFiles
    build_seconds: float | None


class LanguageSession:
    """Collects what a plan gives."""

    def __init__(self, plan: LanguagePlan, output: Output) -> None:
        self._plan = plan
        self._output = output
        self.records: list[Record] = []
        self.exit_code = 0

    def measure(self) -> None:
        """Build and measure. Wrong names raise before anything is built."""
        from assay.benchmarks.llm import language_engines
        from assay.benchmarks.llm.harness import bench_language
        from assay.benchmarks.llm.onnx_runtime import OnnxRuntimeDecoder, with_fast_products
        from assay.results.record import new_run_id

        plan = self._plan
        if not plan.names:
            raise UsageError("There is no language model to measure.", hint="assay bench llm smollm2-135m")
        check_plan(language_engines(), plan.engines or (), plan.threads)
        run_id = new_run_id()
        for name in plan.names:
            subject = self._open(Path(name)) if is_artifact(name) else self._build(name)
            engines = self._engines(subject.files)
            with tempfile.TemporaryDirectory(prefix="assay-llm-") as folder:
                files = subject.files
                if OnnxRuntimeDecoder.name in engines:
                    files = with_fast_products(files, Path(folder))
                for threads in plan.threads:
                    self.records += bench_language(
                        subject.spec,
                        files,
                        plan.workload,
                        run_id=run_id,
                        engines_to_run=engines,
                        threads=threads,
                        seed=plan.seed,
                        compile_seconds=subject.build_seconds,
                        # The threads hardly move it, and it takes minutes.
                        perplexity=plan.perplexity and threads == plan.threads[0],
                        progress=self._output.progress(animated=False),
                    )

    def _engines(self, files: LanguageFiles) -> list[str]:
        """The engines to measure; one that cannot run the model is left out with a word."""
        from assay.benchmarks.llm import language_engines

        known = language_engines()
        return choose_engines(
            self._plan.engines or tuple(known),
            lambda name: known[name].unavailable(files),
            self._output,
            files.name,
        )

    def _build(self, name: str) -> _Subject:
        from assay.benchmarks.llm.files import language_files
        from assay.compile.build import build_artifact
        from assay.models.registry import find_model

        plan = self._plan
        result = build_artifact(
            find_model(name),
            target=plan.targets,
            scheme=plan.scheme,
            cache=plan.cache,
            progress=self._output.progress(f"{name}: "),
        )
        spec = result.canonical.spec
        files = language_files(spec, result.path, result.canonical.path)
        return _Subject(spec=spec, files=files, build_seconds=result.build_seconds)

    def _open(self, path: Path) -> _Subject:
        """An artifact that is there; peers run the model behind it, where that is known and the same."""
        from assay.benchmarks.llm.files import language_files
        from assay.runtime.artifact import open_artifact

        manifest = open_artifact(path).manifest
        spec, place = spec_from_manifest(manifest), None
        progress = self._output.progress(f"{spec.name}: ")
        canonical = canonical_behind(path, manifest, self._plan.model, self._plan.cache, progress)
        if canonical is not None:
            spec, place = canonical.spec, canonical.path
        return _Subject(spec=spec, files=language_files(spec, path, place), build_seconds=None)

    def show(self, *, markdown: bool) -> None:
        """Print the records as JSON, or as a table of every engine."""
        from assay.results.comparison import comparison_markdown, comparison_table
        from assay.results.language import language_cells
        from assay.results.record import encode_records

        if self._output.json:
            self._output.print_line(encode_records(self.records).decode().rstrip())
            return
        cells = language_cells(self.records)
        if markdown:
            self._output.print_line(comparison_markdown(cells).rstrip())
        else:
            self._output.print(comparison_table(cells, title="Language models (above 1: ours is better)"))
