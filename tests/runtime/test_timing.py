from __future__ import annotations

import numpy as np
import pytest

import assay.runtime
from assay.errors import ArtifactError, InterfaceError
from assay.runtime.timing import is_kernel, time_kernels

BATCH, ROWS, COLUMNS = 5, 96, 33


def make_input() -> np.ndarray:
    return np.ones((BATCH, ROWS), np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_kernel_of_a_run_is_timed(tiny_artifact, tiny, threads):
    model = assay.runtime.load(tiny_artifact, threads=threads)
    times = model.kernel_times({"x": make_input()}, repeats=3)
    names = [call.kernel for call in times.calls]
    assert "matmul" in names
    assert not any(name.startswith("vm.") for name in names)
    assert times.own_calls > 0
    assert times.threads == threads
    assert len(times.runs) == len(times.unobserved) == 3
    product = times.calls[names.index("matmul")]
    assert product.arguments == ((BATCH, ROWS), (ROWS, COLUMNS), (BATCH, COLUMNS))
    assert product.weights == (1,)
    for run in times.runs:
        assert len(run.starts) == len(run.durations) == len(names)
        assert all(duration > 0 for duration in run.durations)
        ends = [start + duration for start, duration in zip(run.starts, run.durations, strict=True)]
        assert list(run.starts) == sorted(run.starts)
        assert all(end <= start for end, start in zip(ends, run.starts[1:], strict=False))
        assert ends[-1] <= run.seconds


def test_the_model_runs_as_before_afterwards(tiny_artifact, tiny):
    model = assay.runtime.load(tiny_artifact)
    model.kernel_times({"x": make_input()}, repeats=1)
    expected = tiny.reference(make_input())
    np.testing.assert_allclose(model.run({"x": make_input()})["y"], expected["y"], rtol=1e-5)


def test_inputs_are_checked(tiny_artifact):
    model = assay.runtime.load(tiny_artifact)
    with pytest.raises(InterfaceError):
        model.kernel_times({"x": np.ones((1, 2), np.float32)})
    with pytest.raises(ValueError, match="at least 1"):
        model.kernel_times({"x": make_input()}, repeats=0)


def test_bookkeeping_is_no_kernel():
    assert is_kernel("fused_matmul_add")
    assert not is_kernel("vm.builtin.alloc_tensor")
    assert not is_kernel("shape_func1")


def test_runs_that_call_different_kernels_cannot_be_timed():
    class Fickle:
        runs = 0

        def call(self, arrays, threads, instrument=None):
            self.runs += 1
            if instrument is not None:
                for before in (True, False):
                    instrument(None, f"kernel{self.runs}", before, None)
            return []

        def is_weight(self, tensor):
            return False

    with pytest.raises(ArtifactError, match="differ from run to run"):
        time_kernels(Fickle(), [], 1, 2)
