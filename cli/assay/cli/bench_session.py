"""One `assay bench`: build what is not built, measure model after model, keep records and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.cli.artifacts import canonical_behind, is_artifact, spec_from_manifest
from assay.cli.engine_choice import check_plan, choose_engines
from assay.cli.failures import as_assay_error, report_failure
from assay.cli.output import Output
from assay.cli.results_place import default_results
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.benchmarks.places import Place
    from assay.models.export import CanonicalModel
    from assay.models.spec import ModelSpec
    from assay.results.record import Record
    from assay.results.report import Row

__all__ = ["Plan", "Session", "save_records"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure of every model; ``seconds`` is the least time of the samples of a round.

    Of several ``profiles`` each is built, and all take turns. ``place`` is where the rounds run, by default
    this machine.
    """

    threads: tuple[int, ...]
    engines: tuple[str, ...]
    rounds: int
    seconds: float
    seed: int
    sizes: Mapping[str, int]
    model: str | None
    targets: tuple[str, ...]
    scheme: str | None
    profiles: tuple[str, ...]
    cache: Path | None
    place: Place | None = None


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A model that is ready to be measured: artifacts, each with the seconds of its build where known."""

    spec: ModelSpec
    artifacts: dict[Path, float | None]
    canonical: CanonicalModel | None


class Session:
    """Collects what a plan gives for one name after the other."""

    def __init__(self, plan: Plan, output: Output) -> None:
        from assay.results.record import new_run_id

        self._plan = plan
        self._output = output
        self._run_id = new_run_id()
        self._prefix = ""
        self.records: list[Record] = []
        self.problems: list[Row] = []
        self.exit_code = 0

    def measure(self, names: list[str]) -> None:
        """Measure each of ``names``, models or artifacts; a wrong name raises before anything is measured."""
        self._check_names(names)
        for number, name in enumerate(names, start=1):
            self._prefix = f"[{number}/{len(names)}] " if len(names) > 1 else ""
            try:
                self._measure(name)
            except Exception as error:
                known = as_assay_error(error)
                if known is None or len(names) == 1:
                    raise
                self._note_problem(name, "assay", known.message)
                self._output.note(f"{name} failed:")
                code = report_failure(error, self._output)
                self.exit_code = self.exit_code or code

    def _check_names(self, names: list[str]) -> None:
        from assay.benchmarks.peers import engines

        # How many threads another machine runs is for that to say.
        check_plan(engines(), self._plan.engines, self._plan.threads if self._plan.place is None else (1,))
        models = [name for name in names if not is_artifact(name)]
        if models:
            from assay.compile.profiles import profiles
            from assay.compile.quantize.prepare import find_plan
            from assay.compile.targets import find_targets
            from assay.models.registry import find_model

            find_targets(self._plan.targets)
            find_plan(self._plan.scheme or "f32")
            for profile in self._plan.profiles:
                profiles()[profile]
            for name in models:
                if find_model(name).decoder is not None:
                    raise _language_model(name)

    def _measure(self, name: str) -> None:
        from assay.benchmarks.harness import bench, unavailable_engines

        plan = self._plan
        subject = self._open(Path(name)) if is_artifact(name) else self._build(name)
        (artifact, seconds), *others = subject.artifacts.items()
        missing = unavailable_engines(
            plan.engines, subject.spec.name, artifact, subject.canonical, plan.place
        )
        for engine, reason in missing.items():
            self._note_problem(subject.spec.name, engine, f"not available: {reason}")
        chosen = choose_engines(plan.engines, missing.get, self._output, subject.spec.name)
        for threads in plan.threads:
            self.records += bench(
                subject.spec,
                artifact,
                subject.canonical,
                run_id=self._run_id,
                engines_to_run=chosen,
                threads=threads,
                rounds=plan.rounds,
                seconds_per_round=plan.seconds,
                sizes=plan.sizes,
                seed=plan.seed,
                compile_seconds=seconds,
                others=dict(others),
                place=plan.place,
                progress=self._output.progress(self._prefix, animated=False),
            )

    def _build(self, name: str) -> _Subject:
        from assay.compile.build import build_artifact
        from assay.models.registry import find_model

        plan = self._plan
        artifacts: dict[Path, float | None] = {}
        for profile in plan.profiles:
            result = build_artifact(
                find_model(name),
                target=plan.targets,
                scheme=plan.scheme,
                profile=profile,
                cache=plan.cache,
                progress=self._output.progress(f"{self._prefix}{name}: "),
            )
            artifacts.setdefault(result.path, result.build_seconds)
        return _Subject(spec=result.canonical.spec, artifacts=artifacts, canonical=result.canonical)

    def _open(self, path: Path) -> _Subject:
        """An artifact that is there; peers run the model behind it, where that is known and the same."""
        from assay.runtime.artifact import open_artifact

        manifest = open_artifact(path).manifest
        if manifest.decoder is not None:
            raise _language_model(str(path))
        spec, canonical = spec_from_manifest(manifest), None
        if self._plan.place is not None or any(engine != "assay" for engine in self._plan.engines):
            progress = self._output.progress(f"{self._prefix}{spec.name}: ")
            canonical = canonical_behind(path, manifest, self._plan.model, self._plan.cache, progress)
        return _Subject(spec=spec, artifacts={path: None}, canonical=canonical)

    def _note_problem(self, model: str, engine: str, problem: str) -> None:
        from assay.results.report import Row

        self.problems.append(Row(model=model, engine=engine, threads=None, metric="latency", problem=problem))

    def show(self, *, markdown: bool) -> None:
        """Print the records: as JSON, as Markdown, or as tables."""
        from assay.results.comparison import peer_cells, peer_rows, profile_cells, profile_rows
        from assay.results.costs import cost_markdown, cost_rows, cost_table
        from assay.results.record import encode_records
        from assay.results.report import markdown_table, problem_lines, report_rows, rich_table

        if self._output.json:
            self._output.print_line(encode_records(self.records).decode().rstrip())
            return
        rows = [*report_rows(self.records), *self.problems]
        costs = cost_rows(self.records)
        profiles, peers = profile_rows(self.records), peer_rows(self.records)
        sections = []
        if profiles:
            sections.append(("Build profiles", profile_cells(profiles)))
        if len(peers) > 1 or any(len(row.ratios) > 1 for row in peers):
            sections.append(("Other engines' time over ours", peer_cells(peers)))
        if markdown:
            from assay.results.comparison import comparison_markdown

            tables = [markdown_table(rows), *(comparison_markdown(cells) for _, cells in sections)]
            self._output.print_line("\n".join([*tables, cost_markdown(costs).rstrip()]))
            return
        from assay.results.comparison import comparison_table

        rounds = self._plan.rounds
        title = f"Latency over {rounds} round" + ("" if rounds == 1 else "s")
        shown: list[Any] = [rich_table(rows, title=title), *problem_lines(rows)]
        shown += [comparison_table(cells, title=heading) for heading, cells in sections]
        if costs and not self._output.quiet:
            shown.append(cost_table(costs, title="What else it costs"))
        self._output.print(*shown)


def save_records(records: Sequence[Record], folder: Path | None) -> Path | None:
    """Write the records, if there are any, to ``folder``; the path of the file."""
    if not records:
        return None
    from assay.results.record import write_records

    return write_records(folder or default_results(), records)


def _language_model(name: str) -> UsageError:
    return UsageError(
        f"{name} is a language model, which is measured by other figures.", hint=f"assay bench llm {name}"
    )
