from __future__ import annotations

import pytest

from assay.benchmarks.paged_attention import Case, Shape, measure


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2)])
def test_agrees_with_onnxruntime_and_counts(dtype: str, size: int) -> None:
    shape, case = Shape(name="tiny", heads=4, kv_heads=2, head_dim=16), Case(past=37, rows=3)
    result = measure(shape, case, dtype, 1)
    assert result.seconds > 0
    assert result.peer_seconds > 0
    assert result.cache_bytes == 2 * 40 * 2 * 16 * size
    assert result.operations == 4 * 4 * 16 * (38 + 39 + 40)
