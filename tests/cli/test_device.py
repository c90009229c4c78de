from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assay.runtime.remote.client import connect
from assay.runtime.remote.secret import read_key


@pytest.fixture(autouse=True)
def _no_devices_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_DEVICES", str(tmp_path / "devices.toml"))


def test_a_key(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "lab.key"
    assert cli("device", "key", path).stdout.strip() == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cli.error("device", "key", path, code=12)["kind"] == "StorageError"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_without_a_key_only_this_machine_is_served(cli: Any, host: str) -> None:
    error = cli.error("device", "serve", "--host", host, code=2)
    assert "can be reached from other machines, and there is no key" in error["message"]
    assert "assay device key" in error["hint"]


def test_what_cannot_be_served(cli: Any, tmp_path: Path) -> None:
    cli.error("device", "serve", "--key-file", tmp_path / "none.key", code=2)
    cli.error("device", "serve", "--tracker", "nowhere", code=2)
    cli.error("device", "serve", "--emulate", "x86-64-v3", "--store", tmp_path, code=2)
    cli.error("device", "serve", "--emulate", "aarch64-nein", code=3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for verb in ("serve", "tracker"):
            arguments = ["--store", tmp_path] if verb == "serve" else []
            error = cli.error("device", verb, "--port", port, *arguments, code=2)
            assert "cannot be listened on" in error["message"]


def test_a_device_is_lent_until_it_is_interrupted(tmp_path: Path, cli: Any) -> None:
    key = tmp_path / "lab.key"
    cli("device", "key", key)
    command = [sys.executable, "-m", "assay.cli.main", "device", "serve", "--port", "0", "--name", "lab"]
    command += ["--key-file", str(key), "--store", str(tmp_path / "store"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = json.loads(process.stdout.readline())
        assert (told["name"], told["host"]) == ("lab", "127.0.0.1")
        warning = json.loads(process.stderr.readline())["warning"]
        assert "Whoever has the key can run any code here as" in warning
        assert "not encrypted" in warning
        with connect("127.0.0.1", told["port"], read_key(key), name="lab"):
            address = f"127.0.0.1:{told['port']}"
            error = cli.error("bench", "light-squeezenet", "--device", address, "--key-file", key, code=32)
            assert "is busy" in error["message"]
            error = cli.error("tune", "light-squeezenet", "--device", address, code=32)
            assert "needs a key" in error["message"]
        error = cli.error("device", "serve", "--store", tmp_path / "store", code=2)
        assert "Another server of a device uses the folder" in error["message"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_devices_of_the_devices_file(cli: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "devices.toml").write_text(f"[devices.lab]\naddress = '127.0.0.1:{port}'\n")
    remote = [row for row in cli.json("devices") if row["api"] == "remote"]
    assert [(row["name"], row["state"]) for row in remote] == [("lab", "error")]
    assert "cannot be reached" in remote[0]["problem"]
    assert "cannot be reached" in " ".join(cli("devices").stdout.split())
    assert cli("devices", "-q").stdout.splitlines()[-1] == "lab"
    assert cli.error("devices", "--tracker", f"127.0.0.1:{port}", code=32)["kind"] == "RemoteDeviceError"


def test_options_that_belong_together(cli: Any) -> None:
    cli.error("bench", "light-squeezenet", "--wait", "3", code=2)
    cli.error("bench", "kernels", "--device", "lab", code=2)
    cli.error("bench", "light-squeezenet", "--device", "lab", code=2)
