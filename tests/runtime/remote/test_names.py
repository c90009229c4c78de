from __future__ import annotations

from pathlib import Path

import pytest

from assay.errors import UnknownNameError, UsageError
from assay.runtime.remote.names import Address, DeviceEntry, devices_file, find_device, read_devices

FILE = """
[devices.raspberry]
address = "192.168.1.7:9190"
key-file = "raspberry.key"
target = "aarch64-neon"

[devices.phone]
tracker = "[fe80::1]:9191"
"""


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "devices.toml"
    path.write_text(FILE)
    monkeypatch.setenv("ASSAY_DEVICES", str(path))
    return path


def test_the_devices_of_a_file(devices: Path) -> None:
    assert read_devices() == {
        "raspberry": DeviceEntry(
            name="raspberry",
            address=Address(host="192.168.1.7", port=9190),
            key_file=devices.parent / "raspberry.key",
            target="aarch64-neon",
        ),
        "phone": DeviceEntry(name="phone", tracker=Address(host="fe80::1", port=9191)),
    }


def test_names_addresses_and_trackers(devices: Path) -> None:
    key = Path("other.key")
    raspberry = find_device("raspberry", key)
    assert (raspberry.name, raspberry.key_file, raspberry.target) == ("raspberry", key, "aarch64-neon")
    assert find_device("10.0.0.1:99") == DeviceEntry(name=None, address=Address(host="10.0.0.1", port=99))
    assert find_device("lab@10.0.0.1:99") == DeviceEntry(
        name="lab", tracker=Address(host="10.0.0.1", port=99)
    )


def test_an_unknown_name_suggests_the_nearest(devices: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_device("rapsberry")
    assert caught.value.hint == "Did you mean raspberry?"


def test_without_a_file_a_name_needs_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASSAY_DEVICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert devices_file() == tmp_path / "assay" / "devices.toml"
    assert read_devices() == {}
    with pytest.raises(UsageError, match="names none"):
        find_device("raspberry")


@pytest.mark.parametrize("text", ["host", "host:", ":99", "host:0", "host:65536", "host:http", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="An address is HOST:PORT"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("[devices.a]\nadress = 'h:1'", "device a: there is no field 'adress'", "Did you mean address?"),
        ("[device.a]\naddress = 'h:1'", "there is no field 'device'", "Did you mean devices?"),
        ("[devices.a]", "needs an address or a tracker", None),
        ("[devices.a]\naddress = 'h:1'\ntracker = 'h:2'", "and not both", None),
        ("[devices.a]\naddress = 7", "fields of device a are texts", None),
        ("devices = 7", "devices are tables", None),
        ("[devices", "cannot be read", None),
        ("[devices.a]\naddress = 'h'", "An address is HOST:PORT", None),
    ],
)
def test_files_that_say_what_is_not_known(
    devices: Path, content: str, message: str, hint: str | None
) -> None:
    devices.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_devices()
    assert caught.value.hint == hint


def test_a_file_that_is_no_text(devices: Path) -> None:
    devices.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read_devices()
