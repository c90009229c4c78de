from __future__ import annotations

import msgspec
import pytest

from assay.benchmarks import ceilings
from assay.benchmarks.ceilings import Ceilings, MemoryLevel, find_ceilings
from assay.errors import BenchmarkError, UsageError


@pytest.fixture
def known(monkeypatch) -> list[Ceilings]:
    """What measuring gives, one after the other; measured are those that were taken."""
    taken: list[Ceilings] = []

    def measure(threads: int) -> Ceilings:
        taken.append(
            Ceilings(
                cpu="Test CPU",
                threads=threads,
                date=f"2026-01-0{len(taken) + 1}T00:00:00Z",
                flops=1e11,
                levels=(
                    MemoryLevel(name="L2", capacity=512, bandwidth=2e11),
                    MemoryLevel(name="DRAM", capacity=None, bandwidth=1e10),
                ),
                triad=1e10,
                launch=1e-6,
            )
        )
        return taken[-1]

    monkeypatch.setattr(ceilings, "measure_ceilings", measure)
    return taken


def test_they_are_measured_once(known, tmp_path):
    first = find_ceilings(1, folder=tmp_path)
    assert find_ceilings(1, folder=tmp_path) == first
    assert len(known) == 1
    again = find_ceilings(1, folder=tmp_path, refresh=True)
    assert again.date != first.date
    assert find_ceilings(1, folder=tmp_path) == again


@pytest.mark.parametrize("content", [b"", b"{}", b'{"cpu": 1}'])
def test_what_another_version_left_is_measured_again(known, tmp_path, content):
    find_ceilings(1, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert find_ceilings(1, folder=tmp_path) == known[1]
    assert msgspec.json.decode(path.read_bytes(), type=Ceilings) == known[1]


def test_the_innermost_level_that_holds_it(known, tmp_path):
    found = find_ceilings(1, folder=tmp_path)
    assert [found.level_of(size).name for size in (0, 512, 513)] == ["L2", "L2", "DRAM"]


def test_more_threads_than_cpus(tmp_path):
    with pytest.raises(UsageError):
        find_ceilings(10_000, folder=tmp_path)


def test_a_process_that_fails_is_told_with_its_last_line(monkeypatch):
    monkeypatch.setattr(ceilings.sys, "executable", "/bin/false")
    with pytest.raises(BenchmarkError, match="could not be measured: no message"):
        ceilings.measure_ceilings(1)


@pytest.mark.slow
def test_this_machine_has_ceilings():
    found = ceilings.measure_ceilings(1)
    assert found.flops > 1e8
    assert found.levels[-1].capacity is None
    assert all(level.bandwidth > 1e7 for level in found.levels)
    assert 0 < found.launch < 1
    assert found.triad > 1e7


def test_the_kernels_compute_what_they_say():
    import numpy as np

    from assay.benchmarks.ceiling_kernels import build_ceiling_kernels
    from assay.compile.tvm_import import import_tvm

    kernels = build_ceiling_kernels()
    tensor = import_tvm().runtime.tensor
    generator = np.random.default_rng(0)
    length, passes = 2 * kernels.granule, 3
    data = generator.random(2 * length, np.float32)
    lanes = kernels.granule // 12
    out = tensor(np.zeros(2 * kernels.granule, np.float32))
    kernels.read(tensor(data), out, 2, length, passes)
    sums = out.numpy().reshape(2, 12, lanes).sum((1, 2))
    np.testing.assert_allclose(sums, passes * data.reshape(2, -1).sum(1), rtol=1e-4)

    arrays = [generator.random(2 * length, np.float32) for _ in range(3)]
    result = tensor(arrays[0])
    kernels.triad(result, tensor(arrays[1]), tensor(arrays[2]), 2, length)
    np.testing.assert_allclose(result.numpy(), arrays[1] + 3 * arrays[2], rtol=1e-6)

    start = generator.random(kernels.granule, np.float32)
    kernels.multiply_add(tensor(start), out, 1, 4)
    expected = start.reshape(12, lanes)
    for _ in range(4):
        expected = expected * start[:lanes] + start[lanes : 2 * lanes]
    np.testing.assert_allclose(out.numpy()[: kernels.granule].reshape(12, lanes), expected, rtol=1e-5)
    assert kernels.flops_per_step == 2 * kernels.granule
