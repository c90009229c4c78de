from __future__ import annotations

from pathlib import Path

import pytest

from assay.ci.gate.fitness import check_fitness, cpu_times, timer_noise, widening_of
from assay.ci.gate.report import Finding
from assay.runtime.cpu import available_cpus


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def findings(root: Path, threads: int = 1) -> dict[str, Finding]:
    return {each.check: each for each in check_fitness(threads, root=root, watch_seconds=0)}


def test_a_system_that_tells_nothing_is_fit_as_far_as_is_known(tmp_path):
    found = findings(tmp_path)
    assert set(found) == {"load", "steal", "governor", "turbo", "cgroup", "timing"}
    assert all(each.fit for name, each in found.items() if name != "timing")


@pytest.mark.parametrize(("busy", "widening"), [(2, 1.0), (30, 1.1), (80, 1.25)])
def test_load_and_stolen_time(tmp_path, monkeypatch, busy, widening):
    stolen = 5
    write(tmp_path, proc__stat="cpu  100 0 0 1000 0 0 0 0 0 0\n")

    def sleep(seconds):
        idle = 1100 - busy - stolen
        write(tmp_path, proc__stat=f"cpu  {100 + busy} 0 0 {idle} 0 0 0 {stolen} 0 0\n")

    monkeypatch.setattr("assay.ci.gate.fitness.time.sleep", sleep)
    found = findings(tmp_path)
    assert found["load"].widening == widening
    assert found["load"].fit == (widening == 1.0)
    assert f"{busy}%" in found["load"].detail
    assert not found["steal"].fit
    assert "5.0%" in found["steal"].detail


@pytest.mark.parametrize("text", ["", "cpu\n", "intr 1 2 3\n"])
def test_proc_stat_of_another_form_tells_nothing(tmp_path, text):
    assert cpu_times(write(tmp_path, proc__stat=text)) is None


def test_governor_and_turbo(tmp_path):
    folder = f"sys__devices__system__cpu__cpu{available_cpus()[0]}__cpufreq__scaling_governor"
    found = findings(
        write(tmp_path, **{folder: "powersave\n"}, sys__devices__system__cpu__cpufreq__boost="1")
    )
    assert not found["governor"].fit
    assert "powersave" in found["governor"].detail
    assert not found["turbo"].fit
    found = findings(
        write(
            tmp_path,
            **{folder: "performance\n"},
            sys__devices__system__cpu__cpufreq__boost="0",
            sys__devices__system__cpu__intel_pstate__no_turbo="1",
        )
    )
    assert found["governor"].fit
    assert found["turbo"].fit


@pytest.mark.parametrize(
    ("files", "threads", "fit"),
    [
        ({"sys__fs__cgroup__cpu.max": "max 100000"}, 4, True),
        ({"sys__fs__cgroup__cpu.max": "150000 100000"}, 1, True),
        ({"sys__fs__cgroup__cpu.max": "100000 100000"}, 1, False),
        ({"sys__fs__cgroup__cpu.max": "nonsense"}, 1, True),
        ({"sys__fs__cgroup__a__cpu.max": "50000 100000", "proc__self__cgroup": "0::/a\n"}, 1, False),
        (
            {
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "50000",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000",
            },
            1,
            False,
        ),
        (
            {
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "-1",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000",
            },
            1,
            True,
        ),
    ],
)
def test_limits_of_the_cgroup(tmp_path, files, threads, fit):
    assert findings(write(tmp_path, **files), threads)["cgroup"].fit is fit


def test_noise_of_the_timer():
    ticks = iter(
        time for step in range(200) for time in (step * 10.0, step * 10.0 + (2.0 if step % 5 else 3.0))
    )
    assert timer_noise(lambda: next(ticks)) == pytest.approx(0.5)
    ticks = iter(float(step) for step in range(400))
    assert timer_noise(lambda: next(ticks)) == 0
    assert timer_noise(lambda: 1.0) == float("inf")


def test_widening_is_the_product_within_a_limit():
    def finding(widening):
        return Finding(check="load", fit=False, detail="", widening=widening)

    assert widening_of([]) == 1
    assert widening_of([finding(1.1), finding(1.25)]) == pytest.approx(1.375)
    assert widening_of([finding(1.25)] * 9) == 2


def test_this_machine(tmp_path):
    assert len(check_fitness(1, watch_seconds=0.05)) == 6
    assert cpu_times() is not None
