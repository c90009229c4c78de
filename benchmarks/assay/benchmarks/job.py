"""What the harness asks of a worker, and what the worker answers."""

from __future__ import annotations

import msgspec

__all__ = ["Job", "Report"]


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One round of one engine.

    ``inputs`` is an .npz file; the outputs of the first run go to ``outputs`` (.npz) where it is given, and
    the ``Report`` to ``report``. ``cpus`` are the logical CPUs to stay on; none lets the
    worker choose. Samples are taken for at least ``seconds``, and at least ``least_samples`` of them.
    """

    engine: str
    model: str
    artifact: str
    canonical: str | None
    threads: int
    cpus: tuple[int, ...]
    inputs: str
    outputs: str | None
    report: str
    seconds: float
    least_samples: int = 3


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one round measured: times in seconds, memory in bytes.

    ``load_time`` is from importing the engine to a loaded model, ``first_run_time`` the first run after
    that. ``samples`` are means over ``calls_per_sample`` calls after warming up. ``peak_memory`` is the
    process's largest resident size until the last sample, Python and NumPy included; None where the system
    does not tell.
    """

    load_time: float
    first_run_time: float
    calls_per_sample: int
    samples: tuple[float, ...]
    peak_memory: int | None
