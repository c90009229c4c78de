"""``assay run``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import (
    device_option,
    level_option,
    output_options,
    parse_sizes,
    size_option,
    threads_type,
)
from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt


__all__ = ["command"]


@click.command("run")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--input",
    "files",
    multiple=True,
    metavar="[NAME=]FILE",
    help="An input: .npy, .npz or .json, or an image, audio or text file where the model takes one; "
    "may be repeated.",
)
@size_option
@click.option("--seed", default=0, show_default=True, help="Of generated inputs.")
@level_option
@device_option
@click.option("--threads", type=threads_type, help="Threads of the run.  [default: the physical cores]")
@click.option(
    "-o", "--output", "destination", type=click.Path(path_type=Path), help="Write the outputs as .npz."
)
@click.option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the inputs to this folder too, as a case of a workload for `assay build --profile pgo`.",
)
@output_options
@click.pass_obj
def command(
    output: Output,
    artifact: Path,
    files: tuple[str, ...],
    sizes: tuple[str, ...],
    seed: int,
    level: str | None,
    device: str | None,
    threads: int | None,
    destination: Path | None,
    record: Path | None,
) -> None:
    """Run an artifact on files, or on generated inputs.

    Needs neither the compiler nor ONNX. Without --input, representative inputs are generated, at the
    default size of each symbolic dimension or at that given with --size. In JSON, an input is a nested
    list, and several are an object of such lists. Prints a summary of each output; -o keeps the outputs.

    \b
    Example:
      assay run squeezenet --input photo.jpg
      assay run bert --size sequence=64 -o outputs.npz
      assay run silero --input input=chunk.npy --input state=state.npy --input sr=rate.json
    """
    from assay.cli.artifacts import spec_from_manifest
    from assay.cli.generated_inputs import inputs_or_generated
    from assay.cli.summary import summarize, summary_table
    from assay.runtime import load

    chosen = parse_sizes(sizes)
    if files and chosen:
        raise UsageError("--size is for generated inputs; those of --input have the sizes that they have.")
    model = load(artifact, threads=threads, level=level, device=device)
    for reason in model.passed_over:
        output.note(f"not taken: {reason}")
    manifest, target = model.manifest, model.level.target
    if not model.executed:
        output.warn(f"The artifact was compiled, and its code for {target.name} never executed before.")
    spec = spec_from_manifest(manifest)
    inputs = inputs_or_generated(files, chosen, seed, manifest, spec, output)
    start = perf_counter()
    results = model.run(inputs)
    seconds = perf_counter() - start
    if record is not None:
        from assay.runtime.recording import record_inputs

        output.note(f"recorded as {record_inputs(record, inputs)}")
    if destination is not None:
        _save(destination, results)
    summaries = summarize(results, classifier="image" in spec.tags)
    if output.json:
        output.print_json(
            {
                "model": manifest.model.name,
                "level": target.name,
                "device": f"{model.device.api}:{model.device.index}" if model.device else "cpu",
                "passed_over": list(model.passed_over),
                "threads": model.threads,
                "first_run_seconds": seconds,
                "outputs": summaries,
                "path": str(destination) if destination else None,
            }
        )
        return
    if destination is not None:
        output.print_line(str(destination))
    if not (destination is not None and output.quiet):
        output.print(summary_table(summaries))
    if model.device is not None:
        what = f"{model.device.name} ({model.device.api}:{model.device.index})"
        output.note(f"first run in {seconds * 1e3:.3g} ms on {what}; `assay bench` measures properly")
        return
    count = f"{model.threads} thread" + ("" if model.threads == 1 else "s")
    what = f"{count}, level {target.name}" if len(manifest.levels) > 1 else count
    output.note(f"first run in {seconds * 1e3:.3g} ms on {what}; `assay bench` measures properly")


def _save(destination: Path, results: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the outputs as .npz, atomically, under any name."""
    import io
    import zipfile

    import numpy as np

    from assay.runtime.atomic import replace_file

    with replace_file(destination) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in results.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())
