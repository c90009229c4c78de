"""Schedules of ours for devices beside TVM's dlight: both forms of a model on one device, in turns.

::

    python -m assay.ci.device_schedules resnet18 minilm --target opencl

needs the extra ``compile`` and a device for the target. It prints the largest errors against ONNX Runtime,
the least and the median time of a run with copies of inputs and outputs, and the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import AssayError

if TYPE_CHECKING:
    from assay.compile.verify import Case
    from assay.models.export.canonical import CanonicalModel
    from assay.runtime.drivers.plan_device import DeviceCalls

__all__ = ["compare", "main"]

_REPEATS = 7


def compare(name: str, target: str, repeats: int = _REPEATS) -> str:
    """One line about a model of the zoo, or of a file. Raises AssayError where it does not build or run."""
    from assay.compile.verify import make_cases
    from assay.models.export.canonical import export_canonical
    from assay.models.registry import find_model

    with tempfile.TemporaryDirectory() as folder:
        canonical = export_canonical(find_model(name), Path(folder))
        case = make_cases(canonical)[-1]
        forms = {kind: _calls(canonical, case, target, ours=kind == "ours") for kind in ("dlight", "ours")}
    errors = {kind: _error(calls, case) for kind, calls in forms.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in forms}
    inputs = list(case.inputs.values())
    for _ in range(repeats):
        for kind, calls in forms.items():
            start = time.perf_counter()
            calls.call(inputs)
            seconds[kind].append(time.perf_counter() - start)
    parts = [
        f"{kind} {min(times):.4f} s least, {statistics.median(times):.4f} s median, error {errors[kind]:.1e}"
        for kind, times in seconds.items()
    ]
    least = min(seconds["dlight"]) / min(seconds["ours"])
    median = statistics.median(seconds["dlight"]) / statistics.median(seconds["ours"])
    return f"{name} {target} {case.sizes}: {'; '.join(parts)}; ratio {least:.2f} and {median:.2f}"


def _calls(canonical: CanonicalModel, case: Case, target: str, *, ours: bool) -> DeviceCalls:
    import onnx

    from assay.compile.importer import import_onnx
    from assay.compile.lower_device import lower_device
    from assay.compile.profiles import profiles
    from assay.compile.targets import gpu_targets
    from assay.runtime.devices import open_device
    from assay.runtime.drivers.plan_device import DeviceCalls

    chosen = gpu_targets()[target]
    form = lower_device(
        import_onnx(onnx.load(canonical.path)),
        target=chosen,
        profile=profiles()["release"],
        sizes=case.sizes,
        maxima=case.sizes,
        own_schedules=ours,
    )
    assert form.plan is not None
    weights, dtypes = list(form.weights.values()), [str(each.dtype) for each in case.expected.values()]
    return DeviceCalls(form.plan, open_device(chosen.api.value), form.executable.files, weights, dtypes)


def _error(calls: DeviceCalls, case: Case) -> float:
    import numpy as np

    found = calls.call(list(case.inputs.values()))
    pairs = zip(found, case.expected.values(), strict=True)
    return max(float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0)) for a, b in pairs)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 where all models ran."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.device_schedules", description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--target", default="opencl")
    parser.add_argument("--repeats", type=int, default=_REPEATS)
    chosen = parser.parse_args(arguments)
    try:
        for name in chosen.models:
            print(compare(name, chosen.target, chosen.repeats), flush=True)
    except AssayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
