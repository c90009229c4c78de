from __future__ import annotations

from typing import Any

from assay.compile.pgo.data import KernelSample, ModelDigest, ProfileData, RunSample
from assay.compile.pgo.plan import hot_sizes, key_of_sizes, questions, serial_kernels
from assay.compile.schedules.choices import Choice, batched_matmul_workload, packed_matmul_workload
from assay.compile.targets.target import VectorUnit

UNIT = VectorUnit(bits=256, registers=16)


def run(size: int, runs: int, seconds: float, threads: int = 1) -> RunSample:
    return RunSample(machine="m", target="t", threads=threads, sizes={"n": size}, runs=runs, seconds=seconds)


def kernel(name: str, size: int, seconds: float, threads: int = 1, calls: int = 10) -> KernelSample:
    place: dict[str, Any] = {"machine": "m", "target": "t", "threads": threads, "sizes": {"n": size}}
    return KernelSample(**place, kernel=name, workload=None, shapes=((size,),), calls=calls, seconds=seconds)


def profile(*samples: RunSample | KernelSample) -> ProfileData:
    return ProfileData(
        model=ModelDigest(name="a", canonical_digest="sha256:" + "0" * 64),
        runs=tuple(s for s in samples if isinstance(s, RunSample)),
        kernels=tuple(s for s in samples if isinstance(s, KernelSample)),
    )


def test_sizes_that_are_rare_get_no_code_of_their_own() -> None:
    found = hot_sizes(profile(run(8, 50, 1.0), run(16, 49, 3.0), run(64, 1, 9.0)))
    assert found == [{"n": 16}, {"n": 8}]


def test_at_most_a_few_sizes_get_code_of_their_own() -> None:
    assert len(hot_sizes(profile(*(run(size, 1, 1.0) for size in range(1, 12))))) == 4


def test_a_model_of_fixed_sizes_has_none() -> None:
    fixed = RunSample(machine="m", target="t", threads=1, sizes={}, runs=5, seconds=1.0)
    assert hot_sizes(profile(fixed)) == []


def test_questions_follow_the_time_and_keep_the_panels_of_the_code_for_all_sizes() -> None:
    default, hot = key_of_sizes({"n": 128}), {"n": 19}
    small, large = (packed_matmul_workload(rows, 384, 384) for rows in (19, 128))
    inner = [batched_matmul_workload(12, rows, rows, 32) for rows in (19, 128)]
    workloads = {
        default: {"k": large, "b": inner[1], "rare": packed_matmul_workload(128, 8, 8)},
        key_of_sizes(hot): {"k": small, "b": inner[0], "rare": packed_matmul_workload(19, 8, 8)},
    }
    seen = profile(
        run(19, 9, 1.0), kernel("k", 19, 3.0), kernel("b", 19, 4.0), kernel("rare", 19, 0.01),
        kernel("softmax", 19, 2.0), kernel("k", 19, 30.0, threads=2),
    )  # fmt: skip
    main = questions(seen, workloads, default, [hot], None, UNIT)
    assert [(q.workload, q.width) for q in main] == [(inner[1], None), (large, None)]
    special = questions(seen, workloads, default, [hot], {large.key: Choice(panel_width=16)}, UNIT)
    assert [(q.workload, q.width) for q in special] == [(inner[0], None), (small, 16)]
    analytic = questions(seen, workloads, default, [hot], {}, UNIT)
    assert analytic[1].width is not None


def test_kernels_that_lose_by_several_threads_are_kept_to_one() -> None:
    seen = profile(
        kernel("loses", 8, 1e-3), kernel("loses", 8, 2e-3, threads=2),
        kernel("wins", 8, 1e-3), kernel("wins", 8, 6e-4, threads=2),
        kernel("even", 8, 1e-3), kernel("even", 8, 1.01e-3, threads=2),
        kernel("alone", 8, 1e-3),
    )  # fmt: skip
    assert serial_kernels(seen) == {"loses"}
