"""``assay quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import cache_option, output_options, quantization_options
from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.compile.quantize.mixed import Budget

__all__ = ["command"]


@click.command("quantize")
@click.argument("model", required=False, metavar="[MODEL|FILE.onnx|ARTIFACT]")
@click.option(
    "--scheme",
    default="int4",
    show_default=True,
    help="How weights are stored; options follow the name: int4-g64-sym, int4-gptq.",
)
@quantization_options
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="SCHEME",
    help="A scheme that single weights may get instead, where --max-bytes or --min-sqnr ask for a mixture; "
    "may be repeated.",
)
@click.option("--max-bytes", type=click.IntRange(min=1), help="The most bytes of weights of a mixture.")
@click.option("--min-sqnr", type=float, help="The least signal to noise at the outputs of a mixture, in dB.")
@click.option(
    "-o",
    "--output",
    "destination",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the quantized model as ONNX; `assay build` takes it.",
)
@cache_option
@output_options
@click.pass_obj
def command(
    output: Output,
    model: str | None,
    scheme: str,
    overrides: tuple[str, ...],
    calibration: Path | None,
    candidates: tuple[str, ...],
    max_bytes: int | None,
    min_sqnr: float | None,
    destination: Path | None,
    cache: Path | None,
) -> None:
    """Quantize a model, and report what it costs.

    Shows for each weight and for all: bytes, bits per weight, signal to quantization noise, cosine
    similarity; then the error of the outputs, and what it does to the task: the share of same answers of
    classifiers, the cosine similarity of embeddings, perplexity of language models. Of an artifact that
    generates text it measures the perplexity. Without a model, only the sizes that the schemes imply.

    \b
    Example:
      assay quantize
      assay quantize minilm --scheme int8
      assay quantize gpt2 --scheme int4 --override 'lm_head*=int8' -o gpt2-int4.onnx
      assay quantize minilm --scheme int4 --candidate int8 --min-sqnr 15
    """
    from assay.compile.quantize.mixed import Budget
    from assay.compile.quantize.prepare import find_plan
    from assay.compile.schemes import find_scheme

    plan = find_plan(scheme, overrides)
    more = [find_scheme(name) for name in candidates]
    budget: Budget | None = None
    if max_bytes is not None or min_sqnr is not None:
        budget = Budget(bytes=max_bytes, sqnr=min_sqnr)
    elif more:
        raise UsageError("--candidate needs --max-bytes or --min-sqnr.")
    from assay.cli.quantization_report import report_json, report_tables, sizes_json, sizes_table

    if model is None:
        if output.json:
            output.print_json({"sizes": sizes_json()})
        else:
            output.print(sizes_table())
        return
    from assay.cli.artifacts import is_artifact

    if is_artifact(model):
        from assay.compile.quantize.tasks import artifact_perplexity

        with output.progress().step("measure perplexity"):
            effect = artifact_perplexity(Path(model))
        if output.json:
            output.print_json({"path": model, "perplexity": effect.after, "tokens": effect.count})
        else:
            output.print_line(f"perplexity {effect.after:.4f} over {effect.count} tokens")
        return
    from assay.compile.quantize.session import quantize_spec
    from assay.models.registry import find_model

    report = quantize_spec(
        find_model(model),
        plan,
        calibration=calibration,
        output=destination,
        candidates=more,
        budget=budget,
        cache=cache,
        progress=output.progress(),
    )
    if output.json:
        output.print_json({**report_json(report), "sizes": sizes_json(report.plan.scheme)})
        return
    if not output.quiet:
        output.print(*report_tables(report), sizes_table(report.plan.scheme))
    if report.path is not None:
        output.print_line(str(report.path))
