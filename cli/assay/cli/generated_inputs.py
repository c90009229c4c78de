"""The inputs of a run on the command line: files, or generated ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.spec import ModelSpec
    from assay.runtime.manifest import Manifest

__all__ = ["inputs_or_generated"]


def inputs_or_generated(
    files: tuple[str, ...],
    sizes: Mapping[str, int],
    seed: int,
    manifest: Manifest,
    spec: ModelSpec,
    output: Output,
) -> dict[str, npt.NDArray[Any]]:
    """Arrays by name from ``files``; without any, generated ones of ``sizes``. Raises UsageError for both."""
    if files and sizes:
        raise UsageError("--size is for generated inputs; those of --input have the sizes that they have.")
    if files:
        from assay.cli.input_files import read_inputs

        return read_inputs(files, manifest, spec)
    if manifest.decoder is not None:
        from assay.runtime.generate.example_call import example_call

        output.note(f"no --input: one call on random tokens (seed {seed}); `assay generate` makes text")
        return example_call(manifest.decoder, sizes, seed)
    from assay.models.inputs import make_inputs

    kind = "representative" if spec.representative_inputs is not None else "random"
    output.note(f"no --input: running on generated {kind} inputs (seed {seed})")
    return make_inputs(spec, sizes, seed)
