"""Compare an artifact's outputs with ONNX Runtime's, in a process of its own: a wrong kernel may crash."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import MissingDependencyError, ModelError, VerificationError
from assay.models.inputs import make_inputs, verification_sizes
from assay.runtime.manifest import VerifiedCase

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from assay.models.export import CanonicalModel
    from assay.models.spec import Tolerance

__all__ = [
    "EMULATED_SECONDS",
    "Case",
    "compare",
    "compare_outputs",
    "make_cases",
    "open_reference",
    "read_outputs",
    "reference_outputs",
    "reference_version",
    "run_artifact",
    "run_reference",
    "save_inputs",
    "verify_artifact",
]

_TIMEOUT_SECONDS = 600
# Elements that are compared at a time, with what is computed of them in the caches.
_BLOCK = 1 << 14
EMULATED_SECONDS = 3600
"""That a run may take on a device that the CPU plays, which compiles kernels for minutes."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Inputs at one size of every symbolic dimension, and what ONNX Runtime makes of them.

    Inputs that are not given are the cache of a decoder, which all cases share, in order.
    """

    sizes: dict[str, int]
    inputs: dict[str, npt.NDArray[Any]]
    expected: dict[str, npt.NDArray[Any]]


def reference_version() -> str:
    """The reference engine and its version, as the manifest names it."""
    return f"onnxruntime {_onnxruntime().__version__}"


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependencyError("onnxruntime", "compile") from error
    return onnxruntime


def reference_outputs(
    path: Path | bytes, cases: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> list[dict[str, npt.NDArray[Any]]]:
    """ONNX Runtime's outputs by name for each set of inputs. Raises ModelError where it refuses them."""
    session = open_reference(path)
    return [run_reference(session, inputs) for inputs in cases]


def open_reference(path: Path | bytes) -> Any:
    """ONNX Runtime's session of a model, for ``run_reference``. Raises ModelError where it refuses it."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    # By default, a product with dequantized weights rounds its activations to int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    source = path if isinstance(path, bytes) else str(path)
    try:
        return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions have no common base but this one.
        raise ModelError(f"ONNX Runtime cannot load the model: {_last_part(error)}.") from error


def run_reference(session: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """ONNX Runtime's outputs by name. Raises ModelError where it refuses the inputs."""
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise ModelError(
            f"ONNX Runtime cannot run the model on {shapes}: {_last_part(error)}.",
            hint="If such sizes make no sense for the model, give its dimensions a range or a fixed size.",
        ) from error


def _last_part(error: Exception) -> str:
    """What a message of ONNX Runtime says after its codes."""
    text = " ".join(str(error).split())
    return text.rpartition("Status Message: ")[2].rstrip(".")


def make_cases(
    canonical: CanonicalModel, more: Sequence[Mapping[str, int]] = (), *, few: bool = False
) -> list[Case]:
    """Representative inputs at several sizes of each symbolic dimension, with the expected outputs.

    ``more``: further sizes, of all dimensions. ``few``: of small sizes only, as ``verification_sizes`` says.
    """
    sizes = verification_sizes(canonical.spec, few=few)
    sizes += [dict(each) for each in more if dict(each) not in sizes]
    inputs = [make_inputs(canonical.spec, chosen, seed=seed) for seed, chosen in enumerate(sizes)]
    expected = reference_outputs(canonical.path, inputs)
    return [
        Case(sizes=dict(s), inputs=dict(i), expected=e)
        for s, i, e in zip(sizes, inputs, expected, strict=True)
    ]


def verify_artifact(
    path: Path, cases: Sequence[Case], tolerance: Tolerance, *, level: str
) -> list[VerifiedCase]:
    """Run ``level`` of the artifact at ``path`` on every case and compare.

    Raises VerificationError naming the output, the input sizes and the error where one is over ``tolerance``.
    """
    return compare_outputs(run_artifact(path, cases, level=level), cases, tolerance)


def compare_outputs(
    outputs: Sequence[Mapping[str, npt.NDArray[Any]]], cases: Sequence[Case], tolerance: Tolerance
) -> list[VerifiedCase]:
    """Errors of every output of every case; raises VerificationError where one is over ``tolerance``."""
    return [
        compare(name, actual[name], expected, case.sizes, tolerance)
        for case, actual in zip(cases, outputs, strict=True)
        for name, expected in case.expected.items()
    ]


def run_artifact(
    path: Path, cases: Sequence[Case], *, level: str, seconds: float | None = None
) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs by name of ``level`` of the artifact for each case, from a process of its own.

    Raises VerificationError where it crashes, refuses the inputs, or takes longer than ``seconds`` (default:
    ten minutes).
    """
    seconds = _TIMEOUT_SECONDS if seconds is None else seconds
    with tempfile.TemporaryDirectory(prefix="assay-verify-") as name:
        folder = Path(name)
        save_inputs(folder, cases)
        command = [
            sys.executable,
            "-m",
            "assay.compile.verify_worker",
            str(path),
            level,
            str(folder),
            str(len(cases)),
        ]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise VerificationError(f"The compiled model gave no outputs in {seconds} s.") from error
        if result.returncode:
            lines = result.stderr.strip().splitlines()
            reason = lines[-1] if lines else "no message"
            if result.returncode < 0:
                reason = f"it crashed with signal {-result.returncode}"
            raise VerificationError(f"The compiled model cannot be run: {reason}")
        return read_outputs(folder, cases)


def save_inputs(folder: Path, cases: Sequence[Case]) -> None:
    """Write the inputs of each case to ``folder``, as the worker reads them."""
    import numpy as np

    for i, case in enumerate(cases):
        np.savez(folder / f"inputs{i}.npz", *case.inputs.values())


def read_outputs(folder: Path, cases: Sequence[Case]) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs by name of each case, from what the worker wrote to ``folder``."""
    import numpy as np

    outputs = []
    for i, case in enumerate(cases):
        with np.load(folder / f"outputs{i}.npz") as archive:
            arrays = [archive[f"arr_{k}"] for k in range(len(case.expected))]
            outputs.append(dict(zip(case.expected, arrays, strict=True)))
    return outputs


def compare(
    name: str,
    actual: npt.NDArray[Any],
    expected: npt.NDArray[Any],
    sizes: Mapping[str, int],
    tolerance: Tolerance,
) -> VerifiedCase:
    """Errors of one output; raises VerificationError over tolerance, or for NaN that only we have."""
    import numpy as np

    where = ", ".join(f"{k}={v}" for k, v in sizes.items())
    at = f"Output {name!r}" + (f" at {where}" if where else "")
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise VerificationError(
            f"{at} is {actual.dtype}{list(actual.shape)}; ONNX Runtime gives "
            f"{expected.dtype}{list(expected.shape)}."
        )
    if expected.dtype.kind != "f":
        wrong = int(np.count_nonzero(actual != expected))
        if wrong:
            raise VerificationError(
                f"{at} differs from ONNX Runtime's in {wrong} of {expected.size} elements."
            )
        return _case(name, sizes, tolerance, 0.0, 0.0, 1.0)
    totals = _Totals()
    flat_actual, flat_expected = actual.ravel(), expected.ravel()
    for start in range(0, expected.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        a, e = flat_actual[part].astype(np.float64), flat_expected[part].astype(np.float64)
        if np.any(np.isnan(a) & ~np.isnan(e)):
            raise VerificationError(f"{at} has NaN where ONNX Runtime has none.")
        finite = np.isfinite(e)
        if not (np.all(np.isfinite(a[finite])) and np.array_equal(a[~finite], e[~finite], equal_nan=True)):
            raise VerificationError(f"{at} differs from ONNX Runtime's in infinities or NaN.")
        totals.add(np.where(finite, a, 0), np.where(finite, e, 0), start, tolerance)
    if not totals.excess <= 0:
        ours, theirs = float(flat_actual[totals.worst]), float(flat_expected[totals.worst])
        raise VerificationError(
            f"{at} differs from ONNX Runtime's by {abs(ours - theirs):.3g} at element {totals.worst} "
            f"({ours:.6g} instead of {theirs:.6g}); the tolerance is {tolerance.absolute:g} absolute "
            f"plus {tolerance.relative:g} relative."
        )
    found = _case(name, sizes, tolerance, totals.absolute, totals.relative, totals.cosine)
    return found if tolerance.row is None else _with_row_error(found, at, actual, expected, tolerance.row)


@dataclass(kw_only=True)
class _Totals:
    """Errors of an output, block by block: outputs may be far larger than the caches."""

    absolute: float = 0.0
    relative: float = 0.0
    excess: float = -math.inf
    worst: int = 0
    both: float = 0.0
    ours: float = 0.0
    theirs: float = 0.0

    def add(
        self, a: npt.NDArray[np.float64], e: npt.NDArray[np.float64], start: int, tolerance: Tolerance
    ) -> None:
        """Elements ``start`` and following, all finite: ours and those expected."""
        import numpy as np

        difference, size = np.abs(a - e), np.abs(e)
        self.absolute = max(self.absolute, float(difference.max()))
        self.relative = max(self.relative, float((difference / np.maximum(size, tolerance.absolute)).max()))
        excess = difference - (tolerance.absolute + tolerance.relative * size)
        index = int(excess.argmax())
        if excess[index] > self.excess:
            self.excess, self.worst = float(excess[index]), start + index
        self.both += float(np.dot(a, e))
        self.ours += float(np.dot(a, a))
        self.theirs += float(np.dot(e, e))

    @property
    def cosine(self) -> float:
        """The cosine similarity; 1 where a side is zero everywhere."""
        norms = math.sqrt(self.ours) * math.sqrt(self.theirs)
        return min(self.both / norms, 1.0) if norms else 1.0


def _with_row_error(
    case: VerifiedCase, at: str, actual: npt.NDArray[Any], expected: npt.NDArray[Any], limit: float
) -> VerifiedCase:
    """``case`` with the error of its rows. Raises VerificationError where that is over ``limit``."""
    import msgspec
    import numpy as np

    a, e = actual.astype(np.float64), expected.astype(np.float64)
    deviation = np.maximum(e.std(axis=-1), np.finfo(np.float32).tiny)
    error = float(np.mean(np.sqrt(np.mean((a - e) ** 2, axis=-1)) / deviation))
    if not error <= limit:
        raise VerificationError(
            f"{at} differs from ONNX Runtime's by {error:.3g} of its standard deviation in the mean of its "
            f"rows; the tolerance is {limit:g}."
        )
    return msgspec.structs.replace(case, row_error=float(f"{error:.3g}"), row_tolerance=limit)


def _case(
    name: str, sizes: Mapping[str, int], tolerance: Tolerance, absolute: float, relative: float, cosine: float
) -> VerifiedCase:
    # Three digits are what the errors are worth, and keep the manifest the same where sums differ in the
    # last bit.
    return VerifiedCase(
        sizes=dict(sizes),
        output=name,
        max_absolute_error=float(f"{absolute:.3g}"),
        max_relative_error=float(f"{relative:.3g}"),
        cosine_similarity=float(f"{cosine:.6g}"),
        absolute_tolerance=tolerance.absolute,
        relative_tolerance=tolerance.relative,
    )
