"""``assay device``: this machine as a device for others, a tracker of devices, and keys."""

from __future__ import annotations

import getpass
import ipaddress
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from assay.cli.options import output_options
from assay.cli.output import Output
from assay.cli.remote_options import key_file_option
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.runtime.remote.messages import Welcome

__all__ = ["command"]

_LOOPBACK = "127.0.0.1"


@click.group("device")
def command() -> None:
    """Lend this machine to others as a device, keep track of such devices, make keys.

    \b
    Example:
      assay device key lab.key
      assay device serve --host 192.168.1.7 --key-file lab.key
      assay bench light-squeezenet --device 192.168.1.7:9190 --key-file lab.key
    """


host_option = click.option(
    "--host", default=_LOOPBACK, show_default=True, help="Address to listen on; by default for this machine."
)


@command.command("serve")
@host_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9190, show_default=True, help="0: any that is free."
)
@key_file_option
@click.option("--name", help="What the device is called.  [default: this machine's name]")
@click.option("--tracker", metavar="HOST:PORT", help="Register with this tracker while the device is free.")
@click.option(
    "--address", metavar="HOST", help="With --tracker: the address that hosts are told.  [default: --host]"
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps what was uploaded.  [default: assay/devices/NAME in the user's cache folder]",
)
@click.option(
    "--store-bytes",
    type=click.IntRange(min=1),
    default=10_000_000_000,
    show_default=True,
    help="What it keeps at most; what was used least recently goes first.",
)
@click.option(
    "--emulate", metavar="TARGET", help="Be a device of this target, played by QEMU; its times mean nothing."
)
@output_options
@click.pass_obj
def serve(
    output: Output,
    host: str,
    port: int,
    key_file: Path | None,
    name: str | None,
    tracker: str | None,
    address: str | None,
    store: Path | None,
    store_bytes: int,
    emulate: str | None,
) -> None:
    """Lend this machine to whoever knows the key, one at a time, until it is interrupted.

    A host that is let in sends code and has it run: that is what a device is for, and why a key is needed
    for everything but the loopback interface. The key itself is never sent, and every frame is vouched for
    with it; nothing is encrypted: outside of a trusted network, listen on the loopback interface and let
    hosts in through ssh (`ssh -L 9190:127.0.0.1:9190 DEVICE`).

    \b
    Example:
      assay device serve
      assay device serve --host 0.0.0.0 --key-file lab.key --tracker 192.168.1.2:9191 --name raspberry
      assay device serve --emulate aarch64-neon
    """
    from assay.runtime.remote.folder import held_folder
    from assay.runtime.remote.names import Address
    from assay.runtime.remote.secret import NO_KEY, read_key
    from assay.runtime.remote.server import DeviceServer
    from assay.runtime.remote.tracker import Registration

    key = read_key(key_file) if key_file else NO_KEY
    loopback = _is_loopback(host)
    if not key and not loopback:
        raise UsageError(
            f"{host} can be reached from other machines, and there is no key.",
            hint="assay device key lab.key makes one, for --key-file; or listen on 127.0.0.1.",
        )
    name = name or socket.gethostname()
    welcome, tasks = _emulated(name, emulate) if emulate else _native(name)
    known = Address.parse(tracker) if tracker else None
    with ExitStack() as stack:
        folder = stack.enter_context(held_folder(store or _default_store(stack, name)))
        listener = stack.enter_context(_listener(host, port))
        server = DeviceServer(
            listener=listener, key=key, welcome=welcome, folder=folder, most_bytes=store_bytes, tasks=tasks,
            tell=output.note,
        )  # fmt: skip
        stack.callback(server.close)
        bound = Address(host=host, port=listener.getsockname()[1])
        output.warn(_warning(bound, known_key=bool(key), loopback=loopback))
        if known is not None:
            told = address or (None if host in ("0.0.0.0", "::") else host)
            registration = Registration(
                (known.host, known.port), name, bound.port, address=told, busy=lambda: server.busy,
                tell=output.note,
            )  # fmt: skip
            stack.callback(registration.close)
        _announce(output, {"name": name, "host": host, "port": bound.port}, f"{name} is ready at {bound}")
        _until_interrupted(server.serve)


@command.command("tracker")
@host_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9191, show_default=True, help="0: any that is free."
)
@output_options
@click.pass_obj
def tracker(output: Output, host: str, port: int) -> None:
    """Run TVM's RPC tracker: devices register with it, and hosts ask it where one is free.

    It needs the extra `tracker`. A tracker asks nobody for a key, so that whoever reaches it can register
    something under any name, or queue for devices. It lets nobody in: hosts and devices prove to each other
    that they know the key.

    \b
    Example:
      assay device tracker --host 192.168.1.2
      assay devices --tracker 192.168.1.2:9191
    """
    from assay.compile.tracker import serve_tracker
    from assay.compile.tvm_import import import_tvm
    from assay.runtime.remote.names import Address

    if not _is_loopback(host):
        output.warn("Whoever reaches a tracker can use it: it asks for no key. Keep it in a trusted network.")
    with _listener(host, port) as listener:
        import_tvm()  # which takes a while: when it is ready, it answers
        bound = Address(host=host, port=listener.getsockname()[1])
        _announce(output, {"host": host, "port": bound.port}, f"the tracker is ready at {bound}")
        _until_interrupted(lambda: serve_tracker(listener))


@command.command("key")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@output_options
@click.pass_obj
def key(output: Output, path: Path) -> None:
    """Make a random key, in a file that only you can read. Copy it to the device and to its hosts.

    \b
    Example:
      assay device key lab.key
    """
    from assay.runtime.remote.secret import write_key

    write_key(path)
    _announce(output, {"key_file": str(path)}, str(path))


def _announce(output: Output, data: dict[str, Any], line: str) -> None:
    if output.json:
        output.print_line(msgspec.json.encode(data).decode())
    else:
        output.print_line(line)
    sys.stdout.flush()


def _warning(bound: object, *, known_key: bool, loopback: bool) -> str:
    who = "the key" if known_key else "access to this machine"
    reach = "" if loopback else ", from any machine that reaches it"
    return (
        f"Whoever has {who} can run any code here as {getpass.getuser()}, by {bound}{reach}. "
        "What is sent is not encrypted."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}.",
            hint="Choose another --port, or 0 for any that is free.",
        ) from error


def _default_store(stack: ExitStack, name: str) -> Path:
    from assay.runtime.libraries import cache_folder

    folder = cache_folder()
    if folder is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-device-")))
    plain = "".join(each if each.isalnum() or each in "-_" else "_" for each in name)
    return folder.parent / "devices" / plain


def _native(name: str) -> tuple[Welcome, dict[str, tuple[str, ...]]]:
    from assay.runtime.remote.server import describe_this_machine
    from assay.runtime.remote.tasks import TASKS

    return describe_this_machine(name), dict(TASKS)


def _emulated(name: str, target_name: str) -> tuple[Welcome, dict[str, tuple[str, ...]]]:
    """A device of that target, played by QEMU: artifacts can be measured on it, and kernels cannot."""
    from assay.benchmarks.emulated_worker import emulator_of
    from assay.compile.targets import find_target
    from assay.runtime.cpu import canonical_feature
    from assay.runtime.remote.server import describe_this_machine

    target = find_target(target_name)
    emulator = emulator_of(target)
    worker = "assay.benchmarks.emulated_worker"
    tasks = {"measure": (worker, target.name), "describe": (worker, "--describe", target.name)}
    welcome = msgspec.structs.replace(
        describe_this_machine(name, tasks),
        cpu=f"{target.cpu} ({emulator.description})",
        machine=emulator.platform.machine,
        features=tuple(sorted({canonical_feature(feature) for feature in target.features})),
        emulator=emulator.version,
    )
    return welcome, tasks


def _until_interrupted(wait: Any) -> None:
    """Call ``wait``; Ctrl-C and SIGTERM end it, as what they are meant for."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        wait()
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, earlier)
