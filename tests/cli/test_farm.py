"""`assay farm`: what is refused, and runs on a scheduler and a device that were started by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.compile.records import read_records as read_tuning_records
from assay.results.record import read_records

pytest.importorskip("distributed", reason="the farm extra is not installed")

_SECONDS = 120.0


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """y = x @ w with w [128, 64]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.linspace(-1, 1, 8192, dtype=np.float32).reshape(128, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def spec(tmp_path: Path, product: Path) -> Callable[..., Path]:
    """Write a specification of jobs on the product, and give its path."""

    def write(*jobs: str, devices: tuple[str, ...] = (), more: str = "") -> Path:
        path = tmp_path / "nightly.toml"
        path.write_text(
            f"[matrix]\nmodels = [{json.dumps(str(product))}]\njobs = {json.dumps(jobs)}\n"
            f"[bench]\nrounds = 2\nseconds = 0.01\ndevices = {json.dumps(devices)}\n"
            "[tune]\nbudget = 3\n"
            f"[farm]\nretries = 1\nmost-load = 1.0\n{more}"
        )
        return path

    return write


def test_the_plan_lists_the_jobs(cli: Any, spec: Callable[..., Path]) -> None:
    found = cli.json("farm", "plan", spec("build", "bench", "tune"))
    assert [job["kind"] for job in found] == ["build", "tune", "bench"]
    assert len({job["key"] for job in found}) == 3
    shown = cli("farm", "plan", spec("build", "bench", devices=("loop",))).stdout
    assert "1 thread on loop" in shown


def test_a_specification_that_is_wrong(cli: Any, spec: Callable[..., Path], tmp_path: Path) -> None:
    missing = cli.error("farm", "plan", tmp_path / "none.toml", code=2)["message"]
    assert missing == f"The specification {tmp_path / 'none.toml'} cannot be read: No such file or directory."
    error = cli.error("farm", "plan", spec("build", more="retires = 2\n"), code=2)
    assert error["hint"] == "Did you mean retries?"
    assert "kind" in cli.error("farm", "plan", spec("built"), code=3)["message"]
    both = ("--workers", "1", "--scheduler", "tcp://127.0.0.1:1")
    assert "--workers is for" in cli.error("farm", "run", spec("build"), *both, code=2)["message"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Start a program that is ended in the end; gives the file that its output goes to."""
    with ExitStack() as stack:

        def run(name: str, *command: str, **environment: str) -> Path:
            path = tmp_path / f"{name}.log"
            log = stack.enter_context(path.open("wb"))
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return path

        yield run


def _wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.2)
    raise TimeoutError


@pytest.fixture
def scheduler(start: Callable[..., Path], tmp_path: Path) -> str:
    """The address of a scheduler with one worker, started as the documentation says."""
    dask, file = str(Path(sys.executable).with_name("dask")), tmp_path / "scheduler.json"
    start(
        "scheduler", dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
        "--scheduler-file", str(file),
    )  # fmt: skip
    address = str(_wait_for(lambda: file.is_file() and json.loads(file.read_text() or "{}").get("address")))
    start(
        "worker", dask, "worker", address, "--nworkers", "1", "--nthreads", "1", "--resources", "timing=1",
        "--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(tmp_path / "worker"),
        ASSAY_DEVICES=str(tmp_path / "devices.toml"),
    )  # fmt: skip
    return address


@pytest.mark.slow
@pytest.mark.usefixtures("needs_named_cpu")
def test_builds_searches_and_measurements_on_a_scheduler_that_is_there(
    cli: Any, spec: Callable[..., Path], scheduler: str, tmp_path: Path
) -> None:
    path, folder = spec("build", "bench", "tune"), tmp_path / "farm"
    options = ("--scheduler", scheduler, "--folder", folder, "--cache", tmp_path / "cache")
    ended = cli.json("farm", "run", path, *options)
    assert {each["kind"]: each["status"] for each in ended} == dict.fromkeys(
        ("build", "bench", "tune"), "done"
    )
    (runs,) = (folder / "runs").iterdir()
    records = read_records(runs)
    assert {record.engine for record in records} == {"assay", "onnxruntime"}
    assert {"latency", "artifact_size", "absolute_error"} < {record.metric for record in records}
    for found in (folder / "records").rglob("*.json"):  # none where nothing is faster
        assert read_tuning_records(found).records
    again = cli.json("farm", "run", path, *options)
    assert {each["status"] for each in again} == {"earlier"}


@pytest.mark.slow
def test_a_measurement_on_a_device_of_another_machine(
    cli: Any, spec: Callable[..., Path], scheduler: str, start: Callable[..., Path], tmp_path: Path
) -> None:
    serve = (sys.executable, "-m", "assay.cli.main", "device", "serve", "--host", "127.0.0.1", "--port", "0")
    log = start("device", *serve, "--name", "loop", "--store", str(tmp_path / "store"))
    ready = _wait_for(lambda: [line for line in log.read_text().splitlines() if "is ready at" in line])
    address = ready[0].rpartition(" ")[2]
    (tmp_path / "devices.toml").write_text(f'[devices.loop]\naddress = "{address}"\n')
    options = ("--scheduler", scheduler, "--folder", tmp_path / "farm", "--cache", tmp_path / "cache")
    ended = cli.json("farm", "run", spec("build", "bench", devices=("loop",)), *options)
    assert [(each["kind"], each["device"], each["status"]) for each in ended] == [
        ("build", None, "done"),
        ("bench", "loop", "done"),
    ]
    (runs,) = (tmp_path / "farm" / "runs").iterdir()
    assert all("loop" in record.note for record in read_records(runs) if record.metric == "latency")
