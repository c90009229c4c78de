"""``assay tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import cache_option, output_options, parse_sizes, size_option, threads_type
from assay.cli.output import Output
from assay.cli.remote_options import best_target, open_remote, remote_options

if TYPE_CHECKING:
    from assay.compile.tune.remote import TuningDevice

__all__ = ["command"]


@click.command("tune")
@click.argument("model", metavar="MODEL|FILE.onnx|ARTIFACT")
@click.option(
    "--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds for the search."
)
@click.option(
    "--strategy",
    default="table",
    show_default=True,
    help="What is tried after the short table: grid, random or bayesian (needs the extra `tune`).",
)
@click.option("--target", default="native", show_default=True, help="What to tune for; that CPU must run it.")
@size_option
@click.option("--threads", type=threads_type, default=1, show_default=True, help="Threads of a kernel.")
@click.option(
    "-o",
    "--records",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("records"),
    show_default=True,
    help="Folder of tuning records to add to; `assay build --records` takes it.",
)
@remote_options
@cache_option
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    budget: float,
    strategy: str,
    target: str,
    sizes: tuple[str, ...],
    threads: int,
    records: Path,
    device: str | None,
    key_file: Path | None,
    wait: float,
    cache: Path | None,
) -> None:
    """Search faster tiles for a model, on this machine or on a device of another.

    They are those of convolutions and matrix products. Every candidate is compared with NumPy before it
    counts, in a process of its own, and the best are measured twice. Every trial is on disk before the next
    one starts: a search that is interrupted goes on where it was.

    \b
    Example:
      assay tune light-squeezenet --budget 120
      assay tune minilm --size sequence=32 --strategy bayesian --budget 600
      assay build light-squeezenet --records records
      assay tune light-squeezenet --device raspberry --budget 600
    """
    output: Output = ctx.obj
    from assay.cli.artifacts import is_artifact, model_behind
    from assay.compile.tune.session import tune_model
    from assay.compile.tune.strategies import strategies
    from assay.models.registry import find_model

    strategies()[strategy]  # a wrong name is told before anything is built
    chosen = parse_sizes(sizes)
    if is_artifact(model):
        from assay.runtime.artifact import open_artifact

        spec = model_behind(open_artifact(model).manifest, None)
    else:
        spec = find_model(model)
    lent = _tuning_device(ctx, device, key_file, wait, spec.name)
    if lent is not None and target == "native":
        target = best_target(lent.session)
    tuned = tune_model(
        spec,
        records,
        target=target,
        budget=budget,
        strategy=strategy,
        threads=threads,
        sizes=chosen,
        cache=cache,
        device=lent,
        progress=output.progress(animated=False),
    )
    found = tuned.result
    if output.json:
        output.print_json(
            {
                "model": spec.name,
                "workloads": tuned.workloads,
                "tried": found.tried,
                "rejected": found.rejected,
                "finished": found.exhausted,
                "forms": [{"kernel": form.kernel, "ratio": form.ratio} for form in tuned.forms],
                "records": str(tuned.records) if tuned.records else None,
                "faster": [
                    {"workload": trial.workload, "choice": trial.choice, "ratio": trial.ratio}
                    for trial in found.confirmed
                ],
            }
        )
        return
    for form in tuned.forms:
        output.note(f"  {form.ratio:.3g} times as fast as TVM's own loops: {form.kernel}, by MetaSchedule")
    for trial in found.confirmed:
        decided = ", ".join(f"{name} {value}" for name, value in trial.choice.items())
        output.note(f"  {trial.ratio:.2f} times as fast: {trial.workload} with {decided}")
    if tuned.records is not None:
        output.print_line(str(tuned.records))
    rest = "" if found.exhausted else "; more is left to try: run it again"
    output.note(
        f"{found.tried} candidates tried for {tuned.workloads} workloads, {found.rejected} rejected, "
        f"{len(found.confirmed)} faster than the analytic choice{rest}"
    )


def _tuning_device(
    ctx: click.Context, name: str | None, key_file: Path | None, wait: float, model: str
) -> TuningDevice | None:
    """The device that was asked for, until the command ends."""
    if name is None:
        return None
    from assay.benchmarks.remote import RemotePlace
    from assay.compile.tune.remote import TuningDevice

    session = ctx.with_resource(open_remote(name, key_file, wait))
    told = RemotePlace(session).describe(model, canonical=False)
    return TuningDevice(session=session, microarchitecture=told.microarchitecture, cpu_model=told.cpu_model)
