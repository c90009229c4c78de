"""``assay bench``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from assay.cli.options import (
    cache_option,
    output_options,
    parse_sizes,
    size_option,
    target_options,
    threads_type,
)
from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.cli.bench_session import Session
    from assay.cli.kernel_session import KernelSession

__all__ = ["command"]

# The whole suite ends in minutes with these.
_KERNEL_ROUNDS = 3
_KERNEL_SECONDS = 0.1


@click.command("bench")
@click.argument("subjects", nargs=-1, metavar="[MODEL|ARTIFACT ... | kernels]")
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
    help="What to measure: assay, onnxruntime, torch, torch-compile, numpy (kernels only); may be repeated.  "
    "[of kernels by default: every one but torch-compile]",
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
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    default=("release",),
    show_default=True,
    help="How hard the build works; repeated, all builds take turns and a table has the gain of each.",
)
@target_options
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="With `kernels`: a kernel, or a family (matmul, attention, rows); may be repeated.",
)
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
    profiles: tuple[str, ...],
    only: tuple[str, ...],
    cache: Path | None,
    folder: Path | None,
    markdown: bool,
) -> None:
    """Measure artifacts beside ONNX Runtime and PyTorch.

    Models are built first (from the cache, where it has them). Then every round starts a fresh process per
    engine, one at a time and in random order, on the same inputs, threads and CPUs. Latency is NumPy in to
    NumPy out, as seen from Python. The ratio is ONNX Runtime's time over ours, above 1 where ours is
    faster; its 95% interval comes from resampling the rounds. Raw samples go to a JSON file of records.

    With several profiles, every round runs each of the builds. `kernels` stands for the reference kernels:
    matrix products, attention, and the row-wise work of language models, beside NumPy, PyTorch and ONNX
    Runtime.

    A model that fails gets a row that says why, the others go on, and the exit code is the first failure's.

    \b
    Example:
      assay bench --set default
      assay bench resnet18 --threads 1 --threads 2 --engine assay --engine onnxruntime --engine torch
      assay bench light-squeezenet --profile debug --profile release
      assay bench kernels --only matmul --threads 2
      assay bench artifacts/silero-vad-x86-64-v3-f32-release --json
    """
    output: Output = ctx.obj
    unique_threads = tuple(dict.fromkeys(threads))
    if subjects == ("kernels",):
        from assay.cli.kernel_session import KernelPlan, KernelSession

        _refuse_with_kernels(ctx, "sets", "sizes", "model", "profiles")
        kernel_plan = KernelPlan(
            only=only,
            threads=unique_threads,
            engines=None if _is_default(ctx, "engines") else tuple(dict.fromkeys(engines)),
            rounds=_KERNEL_ROUNDS if _is_default(ctx, "rounds") else rounds,
            seconds=_KERNEL_SECONDS if _is_default(ctx, "seconds") else seconds,
            seed=seed,
            target=",".join(targets),
            cache=cache,
        )
        kernels = KernelSession(kernel_plan, output)
        _finish(kernels, kernels.measure, folder, output, markdown=markdown)
        return
    from assay.cli.bench_session import Plan, Session
    from assay.cli.sets import models_of

    if only:
        raise UsageError("--only chooses among the reference kernels: assay bench kernels --only NAME.")
    names = [*subjects, *(name for chosen in sets for name in models_of(chosen))]
    if not names:
        raise UsageError(
            "There is nothing to measure.", hint="Name models or artifacts, or choose --set default."
        )
    plan = Plan(
        threads=unique_threads,
        engines=tuple(dict.fromkeys(engines)),
        rounds=rounds,
        seconds=seconds,
        seed=seed,
        sizes=parse_sizes(sizes),
        model=model,
        targets=targets,
        scheme=scheme,
        profiles=tuple(dict.fromkeys(profiles)),
        cache=cache,
    )
    session = Session(plan, output)
    measure = partial(session.measure, list(dict.fromkeys(names)))
    _finish(session, measure, folder, output, markdown=markdown)
    ctx.exit(session.exit_code)


def _finish(
    session: Session | KernelSession,
    measure: Callable[[], None],
    folder: Path | None,
    output: Output,
    *,
    markdown: bool,
) -> None:
    """Measure, keep the records, and show them."""
    from assay.cli.bench_session import save_records

    try:
        measure()
    finally:
        # Whatever was measured before an interrupt is kept too.
        path = save_records(session.records, folder)
    session.show(markdown=markdown)
    if path is not None:
        output.note(f"records: {path}")


def _is_default(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.DEFAULT


def _refuse_with_kernels(ctx: click.Context, *names: str) -> None:
    """Raise UsageError for an option that says nothing of reference kernels."""
    for parameter in ctx.command.params:
        if parameter.name in names and not _is_default(ctx, parameter.name):
            raise UsageError(f"{parameter.opts[-1]} is for models, not for the reference kernels.")
