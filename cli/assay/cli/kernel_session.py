"""One `assay bench kernels`: build the reference kernels, measure engines on them, keep and show records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.engine_choice import check_plan, choose_engines
from assay.cli.output import Output

if TYPE_CHECKING:
    from assay.benchmarks.kernels import KernelSpec
    from assay.results.record import Record

__all__ = ["KernelPlan", "KernelSession"]


@dataclass(frozen=True, kw_only=True)
class KernelPlan:
    """What to measure; ``engines`` is None for all that are installed."""

    only: tuple[str, ...]
    threads: tuple[int, ...]
    engines: tuple[str, ...] | None
    rounds: int
    seconds: float
    seed: int
    target: str
    cache: Path | None


class KernelSession:
    """Collects what a plan gives."""

    def __init__(self, plan: KernelPlan, output: Output) -> None:
        self._plan = plan
        self._output = output
        self._kernels: list[KernelSpec] = []
        self.records: list[Record] = []
        self.exit_code = 0

    def measure(self) -> None:
        """Build and measure. Wrong names raise before anything is built."""
        from assay.benchmarks.kernels import choose_kernels
        from assay.benchmarks.peers import engines
        from assay.results.record import new_run_id

        plan = self._plan
        self._kernels = choose_kernels(plan.only)
        check_plan(engines(), plan.engines or (), plan.threads)
        from assay.benchmarks.kernel_bench import KERNEL_ENGINES, bench_kernels, build_kernels

        progress = self._output.progress(animated=False)
        built = build_kernels(self._kernels, target=plan.target, cache=plan.cache, progress=progress)
        files = built[0].files
        chosen = choose_engines(
            plan.engines or KERNEL_ENGINES,
            lambda name: engines()[name].unavailable(files),
            self._output,
            "reference kernels",
        )
        run_id = new_run_id()
        for threads in plan.threads:
            self.records += bench_kernels(
                built,
                run_id=run_id,
                engines_to_run=chosen,
                threads=threads,
                rounds=plan.rounds,
                seconds_per_round=plan.seconds,
                seed=plan.seed,
                progress=progress,
            )

    def show(self, *, markdown: bool) -> None:
        """Print the records as JSON, or as a table of our time and every other engine's over it."""
        from assay.results.comparison import (
            comparison_markdown,
            comparison_table,
            peer_cells,
            peer_rows,
        )
        from assay.results.record import encode_records
        from assay.results.report import markdown_table, report_rows, rich_table

        if self._output.json:
            self._output.print_line(encode_records(self.records).decode().rstrip())
            return
        rows = peer_rows(self.records)
        if not rows:
            latencies = report_rows(self.records)
            table = (
                markdown_table(latencies) if markdown else rich_table(latencies, title="Reference kernels")
            )
            self._output.print(table) if not isinstance(table, str) else self._output.print_line(
                table.rstrip()
            )
            return
        cells = peer_cells(rows, operations={spec.name: spec.operations for spec in self._kernels})
        if markdown:
            self._output.print_line(comparison_markdown(cells).rstrip())
        else:
            self._output.print(
                comparison_table(cells, title="Reference kernels: other engines' time over ours")
            )
