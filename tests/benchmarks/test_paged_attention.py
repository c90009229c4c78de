from __future__ import annotations

import pytest

from assay.benchmarks.paged_attention import Case, Shape, measure


@pytest.mark.slow
def test_agrees_with_onnxruntime_and_counts() -> None:
    shape, case = Shape(name="tiny", heads=4, kv_heads=2, head_dim=16), Case(past=37, rows=3)
    result = measure(shape, case, "float16", 1)
    assert result.seconds > 0
    assert result.peer_seconds > 0
    assert result.cache_bytes == 2 * 40 * 2 * 16 * 2
    assert result.operations == 4 * 4 * 16 * (38 + 39 + 40)
