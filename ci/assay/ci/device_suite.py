"""Confirm code for a GPU on a machine that has one: build anywhere, run there, keep what was found.

::

    python -m assay.ci.device_suite prepare suite light-squeezenet minilm --target cuda-sm_80,cuda-sm_90
    python -m assay.ci.device_suite run suite --device cuda -o cuda.json

``prepare`` needs the extras ``compile`` and ``cuda``, and no GPU; ``run`` needs the base install and
``cuda-bindings``, and no network. ``nox -s cuda_suite`` does both on one machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from assay.ci.json_file import write_json
from assay.errors import AssayError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.session import Model

__all__ = ["CaseResult", "ModelResult", "SuiteResult", "main", "prepare", "run"]

_WARM_UP, _REPEATS = 3, 20
_CASE = "case.json"


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the suite writes."""


class _Case(Struct, frozen=True, kw_only=True):
    """What ``prepare`` says of a model: how many cases there are, their sizes, and the tolerance."""

    sizes: tuple[dict[str, int], ...]
    absolute: float
    relative: float


class CaseResult(Struct, frozen=True, kw_only=True):
    """One case: the largest error over all outputs, whether all are within tolerance, and seconds of a run.

    ``seconds`` are those of each of the timed runs, with copies of inputs and outputs.
    """

    sizes: dict[str, int]
    max_absolute_error: float
    within_tolerance: bool
    seconds: tuple[float, ...]


class ModelResult(Struct, frozen=True, kw_only=True):
    """One model: the level that ran, its cases; or why it did not run."""

    model: str
    level: str | None = None
    cases: tuple[CaseResult, ...] = ()
    problem: str | None = None

    @property
    def right(self) -> bool:
        """Whether it ran, and every case agreed."""
        return self.problem is None and all(case.within_tolerance for case in self.cases)


class SuiteResult(Struct, frozen=True, kw_only=True):
    """All models on one device, which is described as ``assay devices --json`` does."""

    device: dict[str, Any]
    assay_version: str
    models: tuple[ModelResult, ...]


def prepare(folder: Path, models: Sequence[str], target: str) -> list[Path]:
    """Build ``models`` for ``target`` (several with commas), and write ONNX Runtime's outputs beside them."""
    import numpy as np

    from assay.compile.build import build_artifact
    from assay.compile.verify import make_cases
    from assay.models.registry import find_model

    places = []
    for name in models:
        place = folder / Path(name).stem
        result = build_artifact(find_model(name), output=place / "artifact", target=target)
        cases = make_cases(result.canonical)
        for i, case in enumerate(cases):
            for what, arrays in (("inputs", case.inputs), ("expected", case.expected)):
                named: dict[str, Any] = dict(arrays)
                np.savez(place / f"{what}{i}.npz", **named)
        tolerance = result.canonical.spec.tolerance
        described = _Case(
            sizes=tuple(dict(case.sizes) for case in cases),
            absolute=tolerance.absolute,
            relative=tolerance.relative,
        )
        (place / _CASE).write_bytes(msgspec.json.encode(described))
        places.append(place)
    return places


def run(folder: Path, device: str) -> SuiteResult:
    """Run everything that ``prepare`` wrote to ``folder`` on ``device``, and compare.

    Raises UsageError where nothing is there, DeviceError where the device is not.
    """
    from dataclasses import asdict
    from importlib.metadata import version

    from assay.runtime.devices.selection import choose_device, parse_device

    places = sorted(path.parent for path in folder.glob(f"*/{_CASE}"))
    if not places:
        raise UsageError(f"{folder} holds no prepared model.", hint="`... device_suite prepare` writes them.")
    wanted = parse_device(device)
    if wanted is None or wanted.api == "cpu":
        raise UsageError("Name the device: an API such as cuda, or API:INDEX.")
    info = choose_device(wanted.api, index=wanted.index)
    described = {**asdict(info), "features": sorted(info.features)}
    results = tuple(_run_model(place, device) for place in places)
    return SuiteResult(device=described, assay_version=version("assay"), models=results)


def _run_model(place: Path, device: str) -> ModelResult:
    import assay.runtime

    case = msgspec.json.decode((place / _CASE).read_bytes(), type=_Case)
    try:
        model = assay.runtime.load(place / "artifact", device=device)
        results = tuple(_run_case(place, i, case, model) for i in range(len(case.sizes)))
    except AssayError as error:
        return ModelResult(model=place.name, problem=error.message)
    return ModelResult(model=place.name, level=model.level.target.name, cases=results)


def _run_case(place: Path, number: int, case: _Case, model: Model) -> CaseResult:
    import numpy as np

    with np.load(place / f"inputs{number}.npz") as inputs, np.load(place / f"expected{number}.npz") as wanted:
        arrays, expected = dict(inputs), dict(wanted)
    outputs = model.run(arrays)
    seconds = []
    for i in range(_WARM_UP + _REPEATS):
        start = time.perf_counter()
        model.run(arrays)
        if i >= _WARM_UP:
            seconds.append(time.perf_counter() - start)
    error, right = _compared(outputs, expected, case)
    return CaseResult(
        sizes=case.sizes[number], max_absolute_error=error, within_tolerance=right, seconds=tuple(seconds)
    )


def _compared(
    outputs: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]], case: _Case
) -> tuple[float, bool]:
    """The largest absolute error, and whether all are within tolerance; what is not finite is not."""
    import numpy as np

    largest, right = 0.0, True
    for name, reference in expected.items():
        found, sure = (np.asarray(array, np.float64) for array in (outputs[name], reference))
        difference = np.abs(found - sure)
        right &= found.shape == sure.shape and bool(
            (difference <= case.absolute + case.relative * np.abs(sure)).all()
        )
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)))
    return (largest if np.isfinite(largest) else sys.float_info.max), right


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 where every model ran and agreed."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.device_suite", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    preparing = verbs.add_parser("prepare", help="build, and write reference outputs; needs no device")
    preparing.add_argument("folder", type=Path)
    preparing.add_argument("models", nargs="+")
    preparing.add_argument("--target", required=True, help="a target, or several with commas")
    running = verbs.add_parser("run", help="run on a device, and compare")
    running.add_argument("folder", type=Path)
    running.add_argument("--device", default="cuda", help="an API, or API:INDEX (default: cuda)")
    running.add_argument("-o", "--output", type=Path, help="where to write what was found, as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "prepare":
            prepare(options.folder, options.models, options.target)
            return 0
        result = run(options.folder, options.device)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.output is not None:
        write_json(options.output, result)
    for model in result.models:
        print(_line(model))
    return 0 if all(model.right for model in result.models) else 1


def _line(result: ModelResult) -> str:
    if result.problem is not None:
        return f"{result.model}: did not run: {result.problem}"
    verdict = "agrees" if result.right else "DIFFERS"
    error = max((case.max_absolute_error for case in result.cases), default=0.0)
    median = statistics.median(result.cases[0].seconds) if result.cases else 0.0
    return f"{result.model} ({result.level}): {verdict}, error up to {error:.3g}, {median * 1e3:.3g} ms a run"


if __name__ == "__main__":
    sys.exit(main())
