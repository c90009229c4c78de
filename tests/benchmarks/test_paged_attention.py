from __future__ import annotations

import pytest

from assay.benchmarks import paged_attention
from assay.benchmarks.paged_attention import Case, Shape, measure
from assay.errors import BenchmarkError


@pytest.mark.slow
def test_agrees_with_onnxruntime_and_counts() -> None:
    shape, case = Shape(name="tiny", heads=4, kv_heads=2, head_dim=16), Case(past=37, rows=3)
    result = measure(shape, case, "float16", 1)
    assert result.seconds > 0
    assert result.peer_seconds > 0
    assert result.cache_bytes == 2 * 40 * 2 * 16 * 2
    assert result.operations == 4 * 4 * 16 * (38 + 39 + 40)


def test_an_error_is_told_without_a_traceback(monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise BenchmarkError("They differ.")

    monkeypatch.setattr(paged_attention, "measure", fail)
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    assert paged_attention.main([]) == BenchmarkError.exit_code
    assert "They differ." in capsys.readouterr().err
