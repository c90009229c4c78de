from __future__ import annotations

import json

import pytest

from assay.benchmarks.ceilings import Ceilings, MemoryLevel
from assay.benchmarks.profiling import Bound, make_profile
from assay.benchmarks.trace import encode_trace
from assay.errors import ArtifactError
from assay.runtime.kernels import Kernel, Parameter
from assay.runtime.timing import KernelCall, KernelTimes, TimedRun

CEILINGS = Ceilings(
    cpu="Test CPU",
    threads=1,
    date="2026-01-02T03:04:05Z",
    flops=1e9,
    levels=(
        MemoryLevel(name="L2", capacity=1000, bandwidth=4e9),
        MemoryLevel(name="DRAM", capacity=None, bandwidth=1e9),
    ),
    triad=1e9,
    launch=1e-9,
)


def kernel(operations, *touched, scheduled=True) -> Kernel:
    return Kernel(
        parameters=tuple(
            Parameter(name=f"p{index}", dtype="float32", shape=("n",), touched=size)
            for index, size in enumerate(touched)
        ),
        operations=operations,
        scheduled=scheduled,
    )


KERNELS = {
    "product": kernel({"float": "1000*n"}, "4*n", 8000, "4*n"),
    "copy": kernel({}, "4*n", "4*n", scheduled=False),
}


def times(calls, *runs, unobserved=(1e-4,)) -> KernelTimes:
    return KernelTimes(
        threads=1,
        calls=tuple(calls),
        own_calls=7,
        runs=tuple(
            TimedRun(
                start=float(number),
                seconds=sum(durations) * 2,
                starts=tuple(sum(durations[:index]) for index in range(len(durations))),
                durations=tuple(durations),
            )
            for number, durations in enumerate(runs)
        ),
        unobserved=unobserved,
    )


PRODUCT = KernelCall(kernel="product", arguments=((10,), (2000,), (10,)), weights=(1,))
COPY = KernelCall(kernel="copy", arguments=((100,), (100,)), weights=())


def test_calls_of_a_kernel_are_added_up_by_their_medians():
    timed = times([PRODUCT, COPY, PRODUCT], [2e-5, 1e-6, 4e-5], [8e-5, 3e-6, 4e-5], [2e-5, 3e-6, 4e-5])
    profile = make_profile(timed, KERNELS, CEILINGS)
    product, copy = profile.kernels
    assert (product.kernel, product.calls, product.seconds) == ("product", 2, pytest.approx(6e-5))
    assert product.operations == 2 * 1000 * 10
    assert product.rate == pytest.approx(20_000 / 6e-5)
    assert product.touched == 2 * (8000 + 80)
    assert product.weights == 2 * 8000
    assert product.share == pytest.approx(6e-5 / 6.3e-5)
    assert (copy.operations, copy.intensity, copy.scheduled) == (0, None, False)
    assert profile.kernel_seconds == pytest.approx(6.3e-5)
    assert profile.outside == pytest.approx(1e-4 - 6.3e-5)
    assert profile.own_calls == 7


def test_the_roof_is_the_larger_of_two_times():
    profile = make_profile(times([PRODUCT, COPY], [1e-4, 1e-6]), KERNELS, CEILINGS)
    product, copy = profile.kernels
    # 10,000 operations at a billion a second take longer than 8,080 bytes from DRAM.
    assert product.bound is Bound.COMPUTE
    assert product.roof_seconds == pytest.approx(1e-5)
    assert product.roof_fraction == pytest.approx(0.1)
    # 800 bytes come from L2.
    assert copy.bound is Bound.MEMORY
    assert copy.roof_seconds == pytest.approx(800 / 4e9)


def test_weights_come_from_where_all_of_them_fit():
    light = {"product": kernel({"float": 1}, "4*n", "8*n", "4*n")}
    calls = [KernelCall(kernel="product", arguments=((10,), (10,), (10,)), weights=(1,))] * 20
    profile = make_profile(times(calls, [1e-6] * 20), light, CEILINGS)
    # 20 times 80 bytes of weights are more than L2 holds; 160 bytes of a call are not.
    assert profile.kernels[0].roof_seconds == pytest.approx(20 * (80 / 1e9 + 80 / 4e9))


def test_a_kernel_that_only_starts_is_bound_by_that():
    slow = Ceilings(**{**{f: getattr(CEILINGS, f) for f in CEILINGS.__struct_fields__}, "launch": 1.0})
    profile = make_profile(times([COPY], [1e-6]), KERNELS, slow)
    assert profile.kernels[0].bound is Bound.OVERHEAD


def test_without_ceilings_or_descriptions_times_are_left():
    profile = make_profile(times([PRODUCT], [1e-6]), {}, None)
    (found,) = profile.kernels
    assert (found.operations, found.rate, found.roof_seconds, found.bound) == (None, None, None, None)
    assert found.seconds == 1e-6
    assert make_profile(times([PRODUCT], [1e-6]), {}, CEILINGS).kernels[0].bound is None


def test_a_description_of_another_kernel_is_damage():
    with pytest.raises(ArtifactError, match="product: A kernel has 2 parameters"):
        make_profile(times([PRODUCT], [1e-6]), {"product": KERNELS["copy"]}, CEILINGS)


# The parts of Google's Trace Event Format that are used here.
TRACE_SCHEMA = {
    "type": "object",
    "required": ["traceEvents"],
    "properties": {
        "displayTimeUnit": {"enum": ["ms", "ns"]},
        "traceEvents": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "ph", "pid", "tid"],
                "oneOf": [
                    {
                        "properties": {
                            "ph": {"const": "X"},
                            "ts": {"type": "number", "minimum": 0},
                            "dur": {"type": "number", "minimum": 0},
                            "cat": {"type": "string"},
                        },
                        "required": ["ts", "dur", "cat"],
                    },
                    {"properties": {"ph": {"const": "M"}, "args": {"type": "object"}}, "required": ["args"]},
                ],
            },
        },
    },
}


def test_the_trace_follows_the_format():
    import jsonschema

    trace = json.loads(encode_trace("tiny", times([PRODUCT, COPY], [1e-4, 1e-6], [1e-4, 1e-6]), KERNELS))
    jsonschema.validate(trace, TRACE_SCHEMA)
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in events] == ["run 1", "product", "copy", "run 2", "product", "copy"]
    assert events[1]["args"] == {"arguments": "10, 2000, 10", "operations": 10_000, "bytes": 8080}
    assert events[4]["ts"] == pytest.approx(1e6)
    run, *kernels = events[:3]
    assert all(
        run["ts"] <= each["ts"] and each["ts"] + each["dur"] <= run["ts"] + run["dur"] for each in kernels
    )
