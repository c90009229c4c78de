"""``assay bench``."""

from __future__ import annotations

from pathlib import Path

import click

from assay.cli.options import (
    build_options,
    cache_option,
    output_options,
    parse_sizes,
    size_option,
    threads_type,
)
from assay.cli.output import Output
from assay.errors import UsageError

__all__ = ["command"]


@click.command("bench")
@click.argument("subjects", nargs=-1, metavar="[MODEL|ARTIFACT ...]")
@click.option(
    "--set", "sets", multiple=True, help="Models by set: default (those without torch), torch, or all."
)
@click.option(
    "--threads",
    type=threads_type,
    multiple=True,
    default=(1,),
    show_default=True,
    help="Threads of every engine; may be repeated.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=("assay", "onnxruntime"),
    show_default=True,
    help="What to measure: assay, onnxruntime, torch; may be repeated.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Fresh processes per engine; an interval needs at least three.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=0.4,
    show_default=True,
    help="Least time of the samples of a round.",
)
@click.option("--seed", default=0, show_default=True, help="Of the inputs and of the order of the engines.")
@size_option
@click.option("--model", help="The model that an artifact was built from, where its name is not enough.")
@build_options
@cache_option
@click.option(
    "--results",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the records.  [default: results/runs of the checkout, or of the current folder]",
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    subjects: tuple[str, ...],
    sets: tuple[str, ...],
    threads: tuple[int, ...],
    engines: tuple[str, ...],
    rounds: int,
    seconds: float,
    seed: int,
    sizes: tuple[str, ...],
    model: str | None,
    targets: tuple[str, ...],
    scheme: str,
    profile: str,
    cache: Path | None,
    folder: Path | None,
    markdown: bool,
) -> None:
    """Measure artifacts beside ONNX Runtime and PyTorch.

    Models are built first (from the cache, where it has them). Then every round starts a fresh process per
    engine, one at a time and in random order, on the same inputs, threads and CPUs. Latency is NumPy in to
    NumPy out, as seen from Python. The ratio is ONNX Runtime's time over ours, above 1 where ours is
    faster; its 95% interval comes from resampling the rounds. Raw samples go to a JSON file of records.

    A model that fails gets a row that says why, the others go on, and the exit code is the first failure's.

    \b
    Example:
      assay bench --set default
      assay bench resnet18 --threads 1 --threads 2 --engine assay --engine onnxruntime --engine torch
      assay bench artifacts/silero-vad-x86-64-v3-f32-release --json
    """
    from assay.cli.bench_session import Plan, Session
    from assay.cli.sets import models_of

    output: Output = ctx.obj
    names = [*subjects, *(name for chosen in sets for name in models_of(chosen))]
    if not names:
        raise UsageError(
            "There is nothing to measure.", hint="Name models or artifacts, or choose --set default."
        )
    plan = Plan(
        threads=tuple(dict.fromkeys(threads)),
        engines=tuple(dict.fromkeys(engines)),
        rounds=rounds,
        seconds=seconds,
        seed=seed,
        sizes=parse_sizes(sizes),
        model=model,
        targets=targets,
        scheme=scheme,
        profile=profile,
        cache=cache,
    )
    session = Session(plan, output)
    try:
        session.measure(list(dict.fromkeys(names)))
    finally:
        # Whatever was measured before an interrupt is kept too.
        path = session.save(folder)
    session.show(markdown=markdown)
    if path is not None:
        output.note(f"records: {path}")
    ctx.exit(session.exit_code)
