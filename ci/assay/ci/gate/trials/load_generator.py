"""Load the machine in bursts: ``python -m assay.ci.gate.trials.load_generator`` runs until it is ended.

It computes, or streams through memory that no cache holds, for a while, and rests for a while, each of a
length drawn at random from a tenth of a second to some seconds, as the jobs of others do. It ends when its
parent does.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["loaded", "main"]

_ELEMENTS = 4_000_000


@contextmanager
def loaded(processes: int | None = None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """With ``processes`` of the generator running, which it gives: if None, as many as this one has CPUs."""
    if processes is None:
        processes = len(os.sched_getaffinity(0))
    command = [sys.executable, "-P", "-m", "assay.ci.gate.trials.load_generator"]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> int:
    """Load the machine until the parent ends."""
    import numpy as np

    parent, generator = os.getppid(), random.Random()
    small, large = np.ones((256, 256), np.float32), np.ones(_ELEMENTS, np.float32)
    while os.getppid() == parent:
        end = time.monotonic() + generator.choice((0.1, 0.3, 1.0, 3.0)) * generator.random()
        streams = generator.random() < 0.5
        while time.monotonic() < end:
            if streams:
                large += 1
            else:
                small @ small
        time.sleep(generator.choice((0.1, 0.3, 1.0)) * generator.random())
    return 0


if __name__ == "__main__":
    sys.exit(main())
