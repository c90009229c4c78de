"""Builders of bad kernels, for a worker process: what a search must survive."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from assay.compile.schedules.choices import Choice, Workload
from assay.compile.targets.target import Target
from assay.compile.tune.kernel import build_kernel

WRONG, CRASHING, HANGING, IMPOSSIBLE = 1, 2, 3, 4
"""Values of ``rows`` that get such a kernel; all others get a good one."""


def build(workload: Workload, choice: Choice, target: Target) -> Callable[..., None]:
    good = build_kernel(workload, Choice(panel_width=choice.panel_width), target)

    def wrong(a: Any, b: Any, out: Any) -> None:
        """Much faster than any other, and one element is wrong."""
        import numpy as np

        good(a, b, out)
        np.from_dlpack(out).reshape(-1)[-1] += 1

    def crashing(a: Any, b: Any, out: Any) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def hanging(a: Any, b: Any, out: Any) -> None:
        time.sleep(3600)

    if choice.rows == IMPOSSIBLE:
        raise RuntimeError("no such tile")
    return {WRONG: wrong, CRASHING: crashing, HANGING: hanging}.get(choice.rows or 0, good)
