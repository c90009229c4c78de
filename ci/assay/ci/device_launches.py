"""How many kernels a call of an artifact launches on a device, by kernel.

::

    python -m assay.ci.device_launches ARTIFACT --target opencl --size tokens=32

needs the base install and no device: launches are counted in the launch plan. Symbolic dimensions have their
smallest size, for a decoder a step of one token, or the one that ``--size`` gives.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.errors import AssayError, UsageError

__all__ = ["count_launches", "main"]


def count_launches(artifact: Path, target: str | None, sizes: Mapping[str, int]) -> dict[str, int]:
    """Launches of each kernel of one call, the most first. ``target``: of the level; None for the only one.

    Raises UsageError where there is no such level or size, and ArtifactError for a damaged artifact.
    """
    from assay.runtime.artifact import open_artifact
    from assay.runtime.bound_plan import bind
    from assay.runtime.manifest import SymbolicSize
    from assay.runtime.plan import decode_plan

    opened = open_artifact(artifact)
    levels = {each.target.name: each for each in opened.manifest.levels if each.target.api is not None}
    if target is None and len(levels) == 1:
        target = next(iter(levels))
    if target not in levels:
        raise UsageError(f"Name one of the targets that {artifact} has for devices: {', '.join(levels)}.")
    inputs = opened.manifest.inputs
    known = {dim.name: dim for each in inputs for dim in each.shape if isinstance(dim, SymbolicSize)}
    for name, size in sizes.items():
        if name not in known or not known[name].minimum <= size <= known[name].maximum:
            raise UsageError(f"{name}={size} is no size of {', '.join(known) or 'the inputs'}.")
    shapes = [
        tuple(sizes.get(d.name, d.minimum) if isinstance(d, SymbolicSize) else d for d in each.shape)
        for each in inputs
    ]
    plan = decode_plan(opened.read(str(levels[target].entry.plan)))
    steps = [step for step in bind(plan, shapes).steps if all(step.grid)]
    return dict(Counter(plan.kernels[step.kernel].name for step in steps).most_common())


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.device_launches", description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--target", help="where the artifact has several for devices")
    parser.add_argument("--size", action="append", default=[], metavar="NAME=SIZE")
    options = parser.parse_args(argv)
    try:
        counts = count_launches(options.artifact, options.target, dict(map(_size, options.size)))
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, count in counts.items():
        print(f"{count:6d} {name}")
    print(f"{sum(counts.values()):6d} launches")
    return 0


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isdecimal():
        raise UsageError(f"{text} is not NAME=SIZE.")
    return name, int(number)


if __name__ == "__main__":
    raise SystemExit(main())
