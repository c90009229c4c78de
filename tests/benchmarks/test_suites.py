"""The suites that asv runs: what it finds in them, and what they make of measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asv.benchmark
import pytest
from asv_runner.benchmarks.mark import SkipNotImplemented

from assay.errors import CpuFeatureError, DeviceError, UsageError
from assay.results.record import UNITS, Machine, Metric, Record
from suites import _suite
from suites._settings import SETTINGS, read_settings
from suites.peers import ratios

ROOT = Path(__file__).resolve().parents[2]
SUITES = ROOT / "benchmarks" / "suites"


def asked(verb: str, *arguments: str) -> None:
    """Run a verb of the script by which asv runs benchmarks."""
    command = [sys.executable, str(asv.benchmark.__file__), verb, str(SUITES), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    file = tmp_path_factory.mktemp("suites") / "found.json"
    asked("discover", str(file))
    benchmarks: list[dict[str, Any]] = json.loads(file.read_text())
    return benchmarks


def test_every_file_is_a_suite(found: list[dict[str, Any]]) -> None:
    files = {path.stem for path in SUITES.glob("[a-z]*.py")}
    assert files == {"artifact", "build", "kernels", "language", "models", "peers", "quality"}
    assert {benchmark["name"].partition(".")[0] for benchmark in found} == files


def test_every_figure_has_a_unit_a_version_and_parameters(found: list[dict[str, Any]]) -> None:
    for benchmark in found:
        assert benchmark["version"] == "1", benchmark["name"]
        assert benchmark["unit"] != "unit", benchmark["name"]
        assert all(benchmark["params"]), benchmark["name"]
        assert len(benchmark["param_names"]) == len(benchmark["params"])


def test_the_arguments_of_every_figure_fit_its_parameters() -> None:
    asked("check")


def test_the_kernels_are_those_of_the_reference_list(found: list[dict[str, Any]]) -> None:
    from assay.benchmarks.kernels import kernels

    (figure,) = (each for each in found if each["name"].startswith("kernels."))
    assert figure["params"][0] == [repr(name) for name in kernels()]


def test_settings_of_a_file_replace_single_keys(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('models = ["mine.onnx"]\nthreads = [1, 2]\n')
    settings = read_settings(str(file))
    assert settings.models == ("mine.onnx",)
    assert settings.threads == (1, 2)
    assert settings.language_models == read_settings().language_models


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("modles = []", "modles"),
        ("threads = [0]", r"threads"),
        ("rounds = 'two'", r"rounds"),
        ("models = [", "cannot be read"),
    ],
)
def test_settings_that_do_not_fit_name_the_file_and_the_key(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"mine.toml.*{told}"):
        read_settings(str(file))


def test_settings_of_no_file_are_refused() -> None:
    with pytest.raises(ValueError, match=r"missing\.toml cannot be read"):
        read_settings("missing.toml")


def record(metric: Metric, engine: str, *rounds: tuple[float, ...]) -> Record:
    machine = Machine(
        cpu="c",
        architecture="a",
        features=(),
        cores=1,
        cpus=1,
        memory_bytes=1,
        system="s",
        governor=None,
        virtualisation=None,
    )
    return Record(
        run_id="r",
        time="2026-01-01T00:00:00Z",
        model="m",
        weights="random",
        sizes={},
        target="native",
        scheme="f32",
        profile="release",
        artifact="sha256:0",
        engine=engine,
        threads=1,
        metric=metric,
        unit=UNITS[metric],
        value=1.0,
        interval=None,
        samples=tuple(sample for samples in rounds for sample in samples),
        samples_per_round=tuple(map(len, rounds)),
        note="",
        machine=machine,
        versions={},
        commit=None,
        dirty=None,
    )


def test_a_figure_is_one_median_a_process() -> None:
    records = [record("latency", "other", (9.0,)), record("latency", "assay", (1.0, 2.0, 6.0), (4.0,))]
    assert _suite.of_processes(records, "latency") == {"samples": [2.0, 4.0], "number": 1}
    halved = _suite.of_processes(records, "latency", change=lambda seconds: seconds / 2)
    assert halved["samples"] == [1.0, 2.0]
    with pytest.raises(ValueError, match="ttft was not measured"):
        _suite.of_processes(records, "ttft")


def test_ratios_are_below_one_where_ours_is_faster_for_times_and_for_rates() -> None:
    times = [record("latency", "assay", (1.0,), (3.0,)), record("latency", "peer", (2.0,), (4.0,))]
    assert ratios(times, "latency", "peer")["samples"] == [0.5, 0.75]
    rates = [record("decode", "assay", (200.0,)), record("decode", "peer", (100.0,))]
    assert ratios(rates, "decode", "peer")["samples"] == [0.5]


def test_a_measurement_serves_each_figure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[list[Record]] = []

    def measure() -> list[Record]:
        made.append([record("latency", "assay", (float(len(made)),))])
        return made[-1]

    key = ["models/of/mine.onnx", "native", 1]
    assert _suite.once("size", key, measure) == made[0]
    assert _suite.once("time", key, measure) == made[0]
    assert len(made) == 1
    # The next round of asv asks for both again, and gets processes of its own.
    assert _suite.once("size", key, measure) == made[1]
    assert _suite.once("time", key, measure) == made[1]
    assert _suite.once("time", ["another"], measure) == made[2]
    assert len(made) == 3


@pytest.mark.parametrize("error", [CpuFeatureError("no AVX-512"), DeviceError("no GPU")])
def test_what_a_machine_lacks_skips_with_the_reason(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SkipNotImplemented, match=str(error)), _suite.missing_skips():
        raise error
    assert f"skipped: {error}" in capsys.readouterr().out


def test_any_other_error_fails() -> None:
    with pytest.raises(UsageError), _suite.missing_skips():
        raise UsageError("wrong")


def test_the_settings_of_the_suites_are_those_of_their_file() -> None:
    assert read_settings() == SETTINGS
