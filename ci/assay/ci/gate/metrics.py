"""What the gate compares: one metric a line, each with its own rule.

A sampled metric has one value a process run, and ``decision`` judges the runs. An exact one has one value a
side, which the same code gives again on any machine that is like this one: any worsening beyond its limits
counts. Less is better in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from assay.ci.gate.rounds import Run
from assay.registry import Registry

__all__ = ["LATENCY", "ExactMetric", "Metric", "SampledMetric", "metrics"]


@dataclass(frozen=True, kw_only=True)
class SampledMetric:
    """``value`` of a process run in ``unit``, None where the system does not tell.

    ``threshold``: the smallest relative worsening that matters; None for that of the command line.
    ``drives``: rounds go on until it is decided, and it counts among what the gate is not sure of; for others
    they go on only while they seem to have got worse. ``share``: its part of the error that the gate may
    make; the parts of all metrics add up to 1.
    """

    name: str
    unit: str
    note: str
    value: Callable[[Run], float | None]
    threshold: float | None = None
    drives: bool = False
    share: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ExactMetric:
    """A figure of a build; worse by up to ``relative`` of the base, or ``absolute``, is allowed."""

    name: str
    unit: str
    note: str
    relative: float
    absolute: float = 0.0


Metric = SampledMetric | ExactMetric

LATENCY = SampledMetric(
    name="latency",
    unit="s",
    note="a run after warming up, NumPy in to NumPy out; CPU time where there is one thread",
    value=lambda run: run.latency,
    drives=True,
    share=0.8,
)

_METRICS: tuple[Metric, ...] = (
    LATENCY,
    SampledMetric(
        name="load_time",
        unit="s",
        note="importing the runtime and loading the artifact",
        value=lambda run: run.load_time,
        threshold=0.2,
    ),
    SampledMetric(
        name="peak_memory",
        unit="bytes",
        note="the largest resident size of the process, Python and NumPy included",
        value=lambda run: None if run.peak_memory is None else float(run.peak_memory),
        threshold=0.03,
        drives=True,
    ),
    ExactMetric(
        name="instructions",
        unit="instructions",
        note="instructions of the kernels of one run with one thread",
        relative=0.01,
    ),
    ExactMetric(
        name="kernels", unit="kernels", note="kernels in the code, those of all levels together", relative=0.0
    ),
    ExactMetric(
        name="workspace",
        unit="bytes",
        note="planned memory of intermediate results at the largest sizes",
        relative=0.01,
        absolute=4096,
    ),
    ExactMetric(name="weights", unit="bytes", note="bytes of the packed weights", relative=0.001),
    ExactMetric(
        name="artifact_size", unit="bytes", note="files of the artifact", relative=0.005, absolute=16_384
    ),
    ExactMetric(
        name="error",
        unit="of tolerance",
        note="largest error of an output against ONNX Runtime, as a part of the tolerance",
        # Another order of a sum changes the last bits; what doubles an error that is visible is no rounding.
        relative=1.0,
        absolute=0.02,
    ),
    ExactMetric(
        name="cosine_distance",
        unit="",
        note="1 minus the cosine similarity of an output and ONNX Runtime's, where that is largest",
        relative=1.0,
        absolute=1e-6,
    ),
    ExactMetric(
        name="compile_time",
        unit="s",
        note="CPU time of `assay build`, the least of up to three builds",
        relative=0.3,
        absolute=2.0,
    ),
)


@cache
def metrics() -> Registry[Metric]:
    """All metrics by name, in the order in which they are shown."""
    registry: Registry[Metric] = Registry("metric")
    for metric in _METRICS:
        registry.add(metric.name, metric)
    return registry
