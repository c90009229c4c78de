from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import relax  # noqa: E402


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _build(builder: Any, x: Any) -> Any:
    return relax.op.nn.softmax(x, axis=-1)


def test_both_forms_compute_the_same(check: Callable[..., None]) -> None:
    sizes = [{"rows": rows} for rows in (1, 5, 150, 300)]
    check(_build, _softmax, (("rows", 130), "float32"), at=sizes, expected={"rows": 256})


def test_a_form_for_one_thread_where_the_size_decides(scheduled: Callable[..., str]) -> None:
    script = scheduled(_build, (("rows", 130), "float32"), sizes={"rows": 512})
    assert "T.parallel" in script
    assert "if " in script
    small = scheduled(_build, (("rows", 130), "float32"), sizes={"rows": 2})
    fixed = scheduled(_build, ((512, 130), "float32"))
    assert "T.parallel" not in small
    assert fixed.count("T.parallel") == script.count("T.parallel") == 1
