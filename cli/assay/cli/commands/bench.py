"""``assay bench``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

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
from assay.cli.remote_options import remote_options
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.benchmarks.places import Place
    from assay.cli.bench_session import Session
    from assay.cli.kernel_session import KernelSession
    from assay.cli.language_session import LanguageSession

__all__ = ["command"]

_Measure: TypeAlias = Callable[[], None]
_T = TypeVar("_T")

# The whole suite ends in minutes with these.
_KERNEL_ROUNDS = 3
_KERNEL_SECONDS = 0.1
_OF_REMOTE_DEVICES = ("device", "key_file", "wait")
_OF_LANGUAGE_MODELS = ("prompt_tokens", "new_tokens", "depths", "batches", "perplexity")


@click.command("bench")
@click.argument("subjects", nargs=-1, metavar="[MODEL|ARTIFACT ... | kernels | llm MODEL|ARTIFACT ...]")
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
    help="What to measure: assay, onnxruntime, torch, torch-compile, numpy (kernels only), llama.cpp (llm "
    "only); may be repeated.  [by default of kernels: all but torch-compile; of llm: all that can run it]",
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
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="With `llm`: length of the prompt.",
)
@click.option(
    "--new-tokens",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="With `llm`: tokens to decode at each depth.",
)
@click.option(
    "--depth",
    "depths",
    type=click.IntRange(min=1),
    multiple=True,
    help="With `llm`: tokens in the cache from which to decode too, besides the prompt's; may be repeated.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    show_default=True,
    help="With `llm`: sequences at once; may be repeated.",
)
@click.option(
    "--perplexity",
    is_flag=True,
    help="With `llm`: record the perplexity of the artifact too; takes minutes.",
)
@remote_options
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
    ctx: click.Context, /, subjects: tuple[str, ...], folder: Path | None, markdown: bool, **_: object
) -> None:
    """Measure artifacts beside ONNX Runtime and PyTorch.

    Models are built first (from the cache, where it has them). Then every round starts a fresh process per
    engine, one at a time and in random order, on the same inputs, threads and CPUs. Latency is NumPy in to
    NumPy out, as seen from Python. The ratio is ONNX Runtime's time over ours, above 1 where ours is
    faster; its 95% interval comes from resampling the rounds. Raw samples go to a JSON file of records.

    With --device, the rounds run on another machine, and outputs are compared with ONNX Runtime's here.

    With several profiles, every round runs each of the builds. `kernels` stands for the reference kernels:
    matrix products, attention, and the row-wise work of language models, beside NumPy, PyTorch and ONNX
    Runtime.

    `llm` measures language models: time to first token, prefill and decode in tokens a second. Token ids go
    in and come out: tokenization is outside of the figures, the choice of the likeliest token inside.

    A model that fails gets a row that says why, the others go on, and the exit code is the first failure's.

    \b
    Example:
      assay bench --set default
      assay bench resnet18 --threads 1 --threads 2 --engine assay --engine onnxruntime --engine torch
      assay bench light-squeezenet --profile debug --profile release
      assay bench kernels --only matmul --threads 2
      assay bench llm smollm2-135m --threads 2 --depth 1024 --batch 1 --batch 4
      assay bench light-squeezenet --device raspberry
      assay bench artifacts/silero-vad-x86-64-v3-f32-release --json
    """
    session: Session | KernelSession | LanguageSession
    if subjects == ("kernels",):
        session, measure = _kernels(ctx)
    elif subjects[:1] == ("llm",):
        session, measure = _language_models(ctx, subjects[1:])
    else:
        session, measure = _models(ctx, subjects)
    _finish(session, measure, folder, ctx.obj, markdown=markdown)
    ctx.exit(session.exit_code)


def _kernels(ctx: click.Context) -> tuple[KernelSession, _Measure]:
    from assay.cli.kernel_session import KernelPlan, KernelSession

    given = ctx.params
    unused = ("sets", "sizes", "model", "profiles", *_OF_REMOTE_DEVICES, *_OF_LANGUAGE_MODELS)
    _refuse("the reference kernels", ctx, *unused)
    plan = KernelPlan(
        only=given["only"],
        threads=_unique(given["threads"]),
        engines=None if _is_default(ctx, "engines") else _unique(given["engines"]),
        rounds=_KERNEL_ROUNDS if _is_default(ctx, "rounds") else given["rounds"],
        seconds=_KERNEL_SECONDS if _is_default(ctx, "seconds") else given["seconds"],
        seed=given["seed"],
        target=",".join(given["targets"]),
        cache=given["cache"],
    )
    session = KernelSession(plan, ctx.obj)
    return session, session.measure


def _language_models(ctx: click.Context, names: tuple[str, ...]) -> tuple[LanguageSession, _Measure]:
    from assay.benchmarks.llm.harness import LanguageWorkload
    from assay.cli.language_session import LanguagePlan, LanguageSession

    given = ctx.params
    _refuse("language models", ctx, "sets", "sizes", "seconds", "profiles", "only", *_OF_REMOTE_DEVICES)
    workload = LanguageWorkload(
        prompt=given["prompt_tokens"],
        new_tokens=given["new_tokens"],
        depths=given["depths"],
        batches=_unique(given["batches"]),
        rounds=given["rounds"],
    )
    plan = LanguagePlan(
        names=names,
        model=given["model"],
        workload=workload,
        threads=_unique(given["threads"]),
        engines=None if _is_default(ctx, "engines") else _unique(given["engines"]),
        seed=given["seed"],
        targets=given["targets"],
        scheme=given["scheme"],
        cache=given["cache"],
        perplexity=given["perplexity"],
    )
    session = LanguageSession(plan, ctx.obj)
    return session, session.measure


def _models(ctx: click.Context, subjects: tuple[str, ...]) -> tuple[Session, _Measure]:
    from assay.cli.bench_session import Plan, Session
    from assay.cli.sets import models_of

    given = ctx.params
    if given["only"]:
        raise UsageError("--only chooses among the reference kernels: assay bench kernels --only NAME.")
    _refuse("other models", ctx, *_OF_LANGUAGE_MODELS)
    names = [*subjects, *(name for chosen in given["sets"] for name in models_of(chosen))]
    if not names:
        raise UsageError(
            "There is nothing to measure.", hint="Name models or artifacts, or choose --set default."
        )
    place, best = _place(ctx)
    plan = Plan(
        threads=_unique(given["threads"]),
        engines=_unique(given["engines"]),
        rounds=given["rounds"],
        seconds=given["seconds"],
        seed=given["seed"],
        sizes=parse_sizes(given["sizes"]),
        model=given["model"],
        targets=(best,) if best and given["targets"] == ("native",) else given["targets"],
        scheme=given["scheme"],
        profiles=_unique(given["profiles"]),
        cache=given["cache"],
        place=place,
    )
    session = Session(plan, ctx.obj)
    return session, partial(session.measure, list(_unique(names)))


def _place(ctx: click.Context) -> tuple[Place | None, str | None]:
    """The device that was asked for, until the command ends, and the best target that it runs."""
    given = ctx.params
    if given["device"] is None:
        for name in ("key_file", "wait"):
            if not _is_default(ctx, name):
                raise UsageError(f"--{name.replace('_', '-')} goes with --device.")
        return None, None
    from assay.benchmarks.remote import RemotePlace
    from assay.cli.remote_options import best_target, open_remote

    device = ctx.with_resource(open_remote(given["device"], given["key_file"], given["wait"]))
    return RemotePlace(device, ctx.obj.progress(animated=False)), best_target(device)


def _unique(values: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(values))


def _finish(
    session: Session | KernelSession | LanguageSession,
    measure: _Measure,
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


def _refuse(subject: str, ctx: click.Context, *names: str) -> None:
    """Raise UsageError for an option that says nothing of the subject."""
    for parameter in ctx.command.params:
        if parameter.name in names and not _is_default(ctx, parameter.name):
            raise UsageError(f"{parameter.opts[-1]} says nothing of {subject}.")
