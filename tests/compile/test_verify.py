from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import assay.compile.verify as verify
from assay.compile.verify import Case, compare, compare_outputs, reference_outputs, run_artifact
from assay.errors import MissingDependencyError, ModelError, VerificationError
from assay.models.spec import Tolerance

TOLERANCE = Tolerance(absolute=1e-3, relative=1e-2)
INF, NAN = np.inf, np.nan


def array(*values: float, dtype: str = "float32") -> Any:
    return np.array(values, dtype)


def test_errors_of_outputs_within_tolerance() -> None:
    case = compare("y", array(1.0, 2.01, -4.0), array(1.0, 2.0, -4.0), {"batch": 3}, TOLERANCE)
    assert case.max_absolute_error == pytest.approx(0.01, rel=1e-2)
    assert case.max_relative_error == pytest.approx(0.005, rel=1e-2)
    assert case.cosine_similarity == pytest.approx(1, abs=1e-5)
    assert (case.output, case.sizes) == ("y", {"batch": 3})
    assert (case.absolute_tolerance, case.relative_tolerance) == (1e-3, 1e-2)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (array(NAN, INF, -INF, 1), array(NAN, INF, -INF, 1)),
        (array(), array()),
        (array(0, 0), array(0, 0)),
        (array(1e-4), array(0)),
        (array(1, 2, dtype="int64"), array(1, 2, dtype="int64")),
        (array(True, False, dtype="bool"), array(True, False, dtype="bool")),
        (np.float32(1).reshape(()), np.float32(1).reshape(())),
    ],
    ids=[
        "NaN and infinities in the same places",
        "empty",
        "zeros",
        "near zero",
        "integers",
        "booleans",
        "scalar",
    ],
)
def test_outputs_that_agree(actual: Any, expected: Any) -> None:
    assert compare("y", actual, expected, {}, TOLERANCE).max_absolute_error <= TOLERANCE.absolute


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (array(1, NAN), array(1, 2), "NaN where ONNX Runtime has none"),
        (array(1, 2), array(1, NAN), "infinities or NaN"),
        (array(1, INF), array(1, 2), "infinities or NaN"),
        (array(1, 2), array(1, INF), "infinities or NaN"),
        (array(-INF), array(INF), "infinities or NaN"),
        (array(1, 2), array(1, 2, 3), r"float32\[2\]; ONNX Runtime gives float32\[3\]"),
        (array(1, dtype="float64"), array(1), "float64.*float32"),
        (array(1.0, 2.1, 5.0), array(1.0, 2.0, 5.0), r"by 0.1 at element 1 \(2.1 instead of 2\)"),
        (array(1, 3, dtype="int64"), array(1, 2, dtype="int64"), "in 1 of 2 elements"),
        (array(0.002), array(0), "by 0.002"),
    ],
)
def test_outputs_that_differ(actual: Any, expected: Any, message: str) -> None:
    with pytest.raises(VerificationError, match=message) as raised:
        compare("logits", actual, expected, {"batch": 2, "sequence": 5}, TOLERANCE)
    assert "'logits' at batch=2, sequence=5" in raised.value.message


def test_errors_of_a_large_output_are_those_of_all_its_elements() -> None:
    generator = np.random.default_rng(0)
    expected = generator.standard_normal((3, 20_000), dtype=np.float32)
    actual = expected + 1e-4 * generator.standard_normal(expected.shape, dtype=np.float32)
    case = compare("y", actual, expected, {}, TOLERANCE)
    a, e = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    relative = np.abs(a - e) / np.maximum(np.abs(e), TOLERANCE.absolute)
    assert case.max_absolute_error == pytest.approx(np.abs(a - e).max(), rel=1e-2)
    assert case.max_relative_error == pytest.approx(relative.max(), rel=1e-2)
    cosine = a @ e / (np.linalg.norm(a) * np.linalg.norm(e))
    assert case.cosine_similarity == pytest.approx(cosine, abs=1e-6)
    actual[2, 17] += 3
    with pytest.raises(VerificationError, match="by 3 at element 40017"):
        compare("y", actual, expected, {}, TOLERANCE)
    actual[2, 18] = NAN
    with pytest.raises(VerificationError, match="NaN where"):
        compare("y", actual, expected, {}, TOLERANCE)


def test_every_case_and_output_is_compared() -> None:
    cases = [Case(sizes={"n": n}, inputs={}, expected={"a": array(1), "b": array(n)}) for n in (1, 2)]
    found = compare_outputs([case.expected for case in cases], cases, TOLERANCE)
    assert [(case.output, case.sizes["n"]) for case in found] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    with pytest.raises(VerificationError, match="'b' at n=2"):
        compare_outputs([cases[0].expected, {"a": array(1), "b": array(7)}], cases, TOLERANCE)


def test_reference_outputs_by_name(perceptron: onnx.ModelProto) -> None:
    x = np.random.default_rng(0).standard_normal((3, 20), dtype=np.float32)
    w, b, v = (onnx.numpy_helper.to_array(tensor) for tensor in perceptron.graph.initializer)
    first, second = reference_outputs(perceptron.SerializeToString(), [{"x": x}, {"x": x[:1]}])
    np.testing.assert_allclose(first["y"], np.maximum(x @ w + b, 0) @ v, rtol=1e-5, atol=1e-5)
    assert first["z"].tolist() == first["y"].argmax(1).tolist()
    assert second["y"].shape == (1, 7)


def test_model_that_the_reference_cannot_run(perceptron: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match=r"cannot run the model on x \[3, 21\]: ."):
        reference_outputs(perceptron.SerializeToString(), [{"x": np.zeros((3, 21), np.float32)}])
    with pytest.raises(ModelError, match=r"cannot load the model: ."):
        reference_outputs(b"nonsense", [])


def test_missing_reference_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="onnxruntime"):
        verify.reference_version()


CASE = Case(sizes={}, inputs={"x": array(1)}, expected={"y": array(1)})


def test_artifact_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="cannot be run: There is no artifact"):
        run_artifact(tmp_path / "none", [CASE], level="x86-64-v3")


def _worker(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Put another program in the place of the process that runs the artifact."""
    original: Callable[..., Any] = verify.subprocess.run
    monkeypatch.setattr(
        verify.subprocess,
        "run",
        lambda command, **options: original([sys.executable, "-c", program], **options),
    )


def test_artifact_that_crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _worker(monkeypatch, f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    with pytest.raises(VerificationError, match=f"crashed with signal {int(signal.SIGSEGV)}"):
        run_artifact(tmp_path, [CASE], level="x86-64-v3")


def test_artifact_that_never_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verify, "_TIMEOUT_SECONDS", 0.2)
    _worker(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(VerificationError, match="no outputs in"):
        run_artifact(tmp_path, [CASE], level="x86-64-v3")


def test_inputs_do_not_stay_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(verify.tempfile, "tempdir", None)
    with pytest.raises(VerificationError):
        run_artifact(tmp_path / "none", [CASE], level="x86-64-v3")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
