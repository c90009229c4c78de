"""Rounds on devices that are played, and on a real one: this machine, through its loopback interface."""

from __future__ import annotations

import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from assay.benchmarks.arrays import load_arrays, save_arrays
from assay.benchmarks.describe import Description, EngineInfo
from assay.benchmarks.harness import bench
from assay.benchmarks.job import Job, Report
from assay.benchmarks.machine import fingerprint
from assay.benchmarks.peers import ModelFiles
from assay.benchmarks.remote import RemotePlace
from assay.compile.targets.microarchitecture import cpu_model, microarchitecture
from assay.errors import BenchmarkError, RemoteDeviceError
from assay.models.export import CanonicalModel
from assay.runtime.cpu import Cpu, detect_cpu
from assay.runtime.remote.client import RemoteDevice, connect
from assay.runtime.remote.messages import Done, FileInfo, Welcome
from assay.runtime.remote.server import DeviceServer, describe_this_machine
from assay.runtime.remote.tasks import TASKS

if TYPE_CHECKING:
    from assay.compile.build import BuildResult

GOOD = Report(load_time=0.001, first_run_time=0.001, calls_per_sample=1, samples=(0.001,), peak_memory=None)


class PlayedDevice:
    """Gives the files that it was made with, whatever it is asked to run."""

    def __init__(self, files: Mapping[str, bytes], status: int = 0, expired: bool = False) -> None:
        self.files, self.status, self.expired = files, status, expired
        self.asked: list[tuple[str, bytes, dict[str, Path]]] = []

    @property
    def address(self) -> str:
        return "The device played at nowhere:1"

    @property
    def welcome(self) -> Welcome:
        return describe_this_machine("played")

    @property
    def cpu(self) -> Cpu:
        return detect_cpu()

    def run(self, task: str, request: bytes, files: dict[str, Path], **_: Any) -> Done:
        self.asked.append((task, request, files))
        infos = {name: FileInfo(sha256="0" * 64, bytes=len(data)) for name, data in self.files.items()}
        return Done(status=self.status, message="it said so", expired=self.expired, files=infos)

    def read(self, name: str, destination: Path, most_bytes: int) -> None:
        destination.write_bytes(self.files[name])


@pytest.fixture
def job(tmp_path: Path, artifact: Path) -> Job:
    save_arrays(tmp_path / "inputs.npz", {"x": np.ones((1, 4), np.float32)})
    return Job(
        engine="assay", model="tiny", artifact=str(artifact), canonical=None, threads=1, cpus=(3,),
        inputs=str(tmp_path / "inputs.npz"), outputs=str(tmp_path / "out.npz"),
        report=str(tmp_path / "report.json"), seconds=0.01,
    )  # fmt: skip


def _place(device: Any) -> RemotePlace:
    return RemotePlace(device)


@pytest.fixture
def outputs(tmp_path: Path) -> bytes:
    save_arrays(tmp_path / "given.npz", {"y": np.full((1, 3), 5, np.float32)})
    return (tmp_path / "given.npz").read_bytes()


def test_a_round_takes_files_along_and_brings_back_a_report(job: Job, outputs: bytes, artifact: Path) -> None:
    device = PlayedDevice({"report.json": msgspec.json.encode(GOOD), "outputs.npz": outputs})
    assert _place(device).run(job, 60) == GOOD
    assert load_arrays(Path(job.outputs or ""))["y"].tolist() == [[5, 5, 5]]
    ((task, request, files),) = device.asked
    (there,) = msgspec.json.decode(request, type=list[Job])
    assert task == "measure"
    assert (there.artifact, there.inputs, there.outputs, there.cpus) == (
        "artifact",
        "inputs.npz",
        "outputs.npz",
        (),
    )
    sent = {path.relative_to(artifact).as_posix() for path in artifact.rglob("*") if path.is_file()}
    assert set(files) == {"inputs.npz", *(f"artifact/{name}" for name in sent)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": (0.001, -0.001)}, "times that are not positive numbers"),
        ({"samples": (0.0,)}, "times that are not positive numbers"),
        ({"samples": ()}, "times that are not positive numbers"),
        ({"load_time": 0.0}, "times that are not positive numbers"),
        ({"calls_per_sample": 0}, "samples of 0 calls"),
        ({"samples": (5.0,) * 100}, "500 s of measurements in a round that took"),
        ({"calls_per_sample": 10**9}, "of measurements in a round that took"),
    ],
)
def test_times_that_cannot_be(job: Job, outputs: bytes, changes: dict[str, Any], message: str) -> None:
    report = msgspec.json.encode(msgspec.structs.replace(GOOD, **changes))
    device = PlayedDevice({"report.json": report, "outputs.npz": outputs})
    with pytest.raises(RemoteDeviceError, match=message):
        _place(device).run(job, 60)
    assert not Path(job.report).exists()


@pytest.mark.parametrize("report", [b"", b"{}", b"[1]", b'{"load_time": NaN}', b"\xff"])
def test_a_report_that_is_none(job: Job, outputs: bytes, report: bytes) -> None:
    device = PlayedDevice({"report.json": report, "outputs.npz": outputs})
    with pytest.raises(RemoteDeviceError, match=r"sent a report\.json that is none"):
        _place(device).run(job, 60)


def test_outputs_that_are_no_arrays(job: Job, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("y.npy", b"\x93NUMPY nonsense")
    for outputs in (b"nonsense", (tmp_path / "bad.npz").read_bytes()):
        device = PlayedDevice({"report.json": msgspec.json.encode(GOOD), "outputs.npz": outputs})
        with pytest.raises(RemoteDeviceError, match="sent outputs that are no arrays"):
            _place(device).run(job, 60)


def test_an_engine_that_fails_or_hangs_there(job: Job) -> None:
    with pytest.raises(BenchmarkError, match="assay failed on tiny, on played: it said so"):
        _place(PlayedDevice({}, status=1)).run(job, 60)
    with pytest.raises(BenchmarkError, match="did not finish one round within 7 s"):
        _place(PlayedDevice({}, status=-9, expired=True)).run(job, 7)


def test_an_instruction_that_the_device_claimed_to_have(job: Job) -> None:
    with pytest.raises(BenchmarkError, match="SIGILL") as caught:
        _place(PlayedDevice({}, status=-4)).run(job, 60)
    assert caught.value.hint == "Its CPU lacks an instruction that the device said it has."


def _description(**changes: Any) -> bytes:
    machine = msgspec.structs.replace(fingerprint(), **changes)
    return msgspec.json.encode(
        Description(
            machine=machine,
            versions={},
            engines={"assay": EngineInfo(version="1")},
            microarchitecture=microarchitecture(),
            cpu_model=cpu_model(),
        )
    )


@pytest.mark.parametrize("changes", [{"architecture": "aarch64"}, {"features": ("avx512f",)}])
def test_a_device_that_contradicts_itself(changes: dict[str, Any]) -> None:
    device = PlayedDevice({"description.json": _description(**changes)})
    with pytest.raises(RemoteDeviceError, match="said that its CPU is"):
        _place(device).fingerprint()


def test_engines_that_the_device_lacks() -> None:
    device = PlayedDevice({"description.json": _description()})
    files = ModelFiles(name="tiny", artifact=Path("a"), canonical=None)
    reasons = _place(device).unavailable(["assay", "onnxruntime"], files)
    assert reasons == {"onnxruntime": "on played: there is no such engine"}


def _serve(folder: Path, **changes: Any) -> tuple[DeviceServer, RemoteDevice]:
    listener = socket.create_server(("127.0.0.1", 0))
    settings: dict[str, Any] = {
        "listener": listener, "key": b"k" * 32, "welcome": describe_this_machine("loopback"),
        "folder": folder, "most_bytes": 1 << 30, "tasks": TASKS, "tell": lambda line: None,
    }  # fmt: skip
    server = DeviceServer(**(settings | changes))
    threading.Thread(target=server.serve, daemon=True).start()
    return server, connect("127.0.0.1", listener.getsockname()[1], b"k" * 32)


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[RemoteDevice]:
    server, device = _serve(tmp_path / "device")
    with device:
        yield device
    server.close()


@pytest.fixture(scope="module")
def built(canonical: CanonicalModel, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The tiny model, compiled for this machine."""
    from assay.compile.build import build_artifact

    return build_artifact(canonical.spec, cache=tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
def test_a_model_is_measured_and_compared_over_the_loopback_interface(
    loopback: RemoteDevice, canonical: CanonicalModel, built: BuildResult
) -> None:
    place = RemotePlace(loopback)
    records = bench(
        canonical.spec, built.path, built.canonical, run_id="run", rounds=2, seconds_per_round=0.01,
        place=place,
    )  # fmt: skip
    assert {record.engine for record in records} == {"assay", "onnxruntime"}
    (ours,) = [each for each in records if (each.engine, each.metric) == ("assay", "latency")]
    assert len(ours.samples_per_round) == 2
    assert ours.machine == fingerprint()
    assert "on the remote device loopback; transfers are outside" in ours.note
    # Without a reference on the device, outputs are compared with what ONNX Runtime gives here.
    alone = bench(
        canonical.spec, built.path, built.canonical, run_id="run", engines_to_run=["assay"], rounds=1,
        seconds_per_round=0.01, place=place,
    )  # fmt: skip
    assert {record.engine for record in alone} == {"assay"}


@pytest.mark.slow
def test_a_device_that_computes_something_else_gives_no_figure(
    loopback: RemoteDevice, canonical: CanonicalModel, built: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = RemotePlace(loopback)

    def wrong(name: str, destination: Path) -> None:
        save_arrays(destination, {"y": np.full((1, 3), 1e3, np.float32)})

    monkeypatch.setattr(place, "_fetch_outputs", wrong)
    with pytest.raises(BenchmarkError, match="do not compute the same"):
        bench(
            canonical.spec, built.path, built.canonical, run_id="run", engines_to_run=["assay"], rounds=1,
            seconds_per_round=0.01, place=place,
        )  # fmt: skip


@pytest.mark.slow
def test_a_device_that_qemu_plays(canonical: CanonicalModel, tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("needs QEMU: apt install qemu-user")
    from assay.cli.commands.device import _emulated
    from assay.compile.build import build_artifact

    welcome, tasks = _emulated("arm", "aarch64-neon")
    assert (welcome.machine, "neon" in welcome.features) == ("aarch64", True)
    built = build_artifact(canonical.spec, target="aarch64-neon", cache=tmp_path / "cache")
    server, device = _serve(tmp_path / "device", welcome=welcome, tasks=tasks)
    with device:
        records = bench(
            canonical.spec, built.path, built.canonical, run_id="run", engines_to_run=["assay"], rounds=1,
            seconds_per_round=0.01, place=RemotePlace(device),
        )  # fmt: skip
    server.close()
    (latency,) = [record for record in records if record.metric == "latency"]
    assert latency.target == "aarch64-neon"
    assert latency.machine.architecture == "aarch64"
    assert "played by qemu-aarch64" in latency.note
