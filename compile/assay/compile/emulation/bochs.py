"""Bochs, a whole emulated PC with AVX-512 and VNNI, that runs the verification worker under Linux.

The machine starts from a CD image made of a Linux kernel and of a file system in memory that holds Python,
the runtime, the artifact and the inputs, and sends the outputs over its serial line. Known to work: Debian
12's packages ``bochs``, ``bochsbios``, ``vgabios``, ``bochs-term``, ``isolinux``, ``syslinux-common``,
``xorriso``, ``busybox-static`` and the kernel of its ``linux-image-cloud-amd64`` (``ci/emulator.sh`` fetches
them).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.compile.emulation.initramfs import shared_object_links, write_initramfs
from assay.compile.verify import read_outputs, save_inputs
from assay.errors import EmulatorError, VerificationError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.compile.verify import Case

__all__ = ["FEATURES", "describe_emulator", "missing_parts", "run_emulated"]

_MODEL = "corei7_icelake_u"
# What Linux finds on that model: the features that targets name.
FEATURES = frozenset({
    "abm", "avx", "avx2", "avx512_vnni", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "bmi1",
    "bmi2", "cx16", "f16c", "fma", "lahf_lm", "movbe", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3", "xsave",
})  # fmt: skip
_KERNEL_VARIABLE = "ASSAY_EMULATOR_KERNEL"
_FILES = {
    "isolinux.bin": Path("/usr/lib/ISOLINUX/isolinux.bin"),
    "ldlinux.c32": Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"),
    "the BIOS of Bochs": Path("/usr/share/bochs/BIOS-bochs-latest"),
    "the VGA BIOS": Path("/usr/share/bochs/VGABIOS-lgpl-latest"),
}
_PROGRAMS = ("bochs", "xorriso", "busybox")
# Bochs 2.7 describes the state of protection keys and compacted XSAVE inconsistently, and the kernel would
# give up AVX for that. With the others Debian 12's kernel 6.1 stops early in its start.
_HIDDEN = "pku,ospke,xsaves,xsavec,sha_ni,fsrm,rdpid,umip,gfni,vaes,vpclmulqdq"
_COMMAND_LINE = (
    "console=ttyS0 loglevel=3 nokaslr mitigations=off nopti audit=0 panic=-1 tsc=reliable lsm=capability "
    f"clearcpuid={_HIDDEN}"
)
_CONFIGURATION = """\
config_interface: textconfig
display_library: term
cpu: model={model}, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=machine.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
clock: sync=none
log: bochs.log
panic: action=fatal
"""
_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /tmp /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devices /dev
exec >/dev/ttyS0 2>&1
export HOME=/root OPENBLAS_NUM_THREADS=1 PYTHONHOME={home} PYTHONPATH={path} LD_LIBRARY_PATH={libraries}
echo STARTED
{python} -S -B -m assay.compile.verify_worker /artifact {level} /cases {count} && echo SUCCEEDED
for name in /cases/outputs*.npz; do echo "BEGIN $name"; /bin/busybox base64 $name; echo END; done
echo FINISHED
/bin/busybox sleep 3
/bin/busybox poweroff -f
"""


def missing_parts() -> list[str]:
    """What the emulated machine needs and this system lacks; nothing where it can be started."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    missing += [name for name, path in _FILES.items() if not path.is_file()]
    if kernel_image() is None:
        missing.append(f"a Linux kernel (/boot/vmlinuz-*-cloud-amd64, or a path in {_KERNEL_VARIABLE})")
    return missing


def kernel_image() -> Path | None:
    """The kernel for the emulated machine: the one in the environment, or one fetched, or one installed."""
    import platformdirs

    named = os.environ.get(_KERNEL_VARIABLE)
    if named:
        return Path(named) if Path(named).is_file() else None
    fetched = Path(platformdirs.user_cache_dir("assay")) / "emulator" / "vmlinuz"
    if fetched.is_file():
        return fetched
    return max(Path("/boot").glob("vmlinuz-*-cloud-amd64"), default=None)


def describe_emulator() -> str:
    """Name, version and CPU model of the emulator."""
    done = subprocess.run(["bochs", "--help", "cpu"], capture_output=True, text=True, check=False)
    version = re.search(r"Bochs x86 Emulator ([\d.]+)", done.stdout + done.stderr)
    return f"Bochs {version[1] if version else 'of unknown version'} ({_MODEL})"


def run_emulated(
    path: Path, cases: Sequence[Case], *, level: str, timeout: float
) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs by name of ``level`` of the artifact at ``path``, a directory, for each case.

    The machine must have finished within ``timeout`` seconds. Raises EmulatorError where it cannot be started
    or says nothing, and VerificationError where the worker fails in it.
    """
    missing = missing_parts()
    if missing:
        raise EmulatorError(
            f"The emulated machine cannot be started: {', '.join(missing)} is missing.",
            hint="On Debian 12, ci/emulator.sh in a clone of Assay installs what it needs.",
        )
    with tempfile.TemporaryDirectory(prefix="assay-emulated-") as name:
        folder = Path(name)
        (folder / "cases").mkdir()
        save_inputs(folder / "cases", cases)
        _write_image(folder, path.resolve(), level, len(cases))
        serial = _run_machine(folder, timeout)
        received = folder / "received"
        received.mkdir()
        _receive(serial, received, len(cases))
        return read_outputs(received, cases)


def _write_image(folder: Path, artifact: Path, level: str, count: int) -> None:
    """The CD image that the machine starts from."""
    needed = _closure(folder, artifact, count)
    inside: dict[str, Path | bytes] = {name: Path(name) for name in needed["files"]}
    loader = next((name for name in inside if Path(name).name.startswith("ld-linux")), None)
    if loader is None:
        raise EmulatorError("The dynamic loader of this system was not found.")
    inside["/lib64/ld-linux-x86-64.so.2"] = Path(loader)
    for file in sorted(artifact.rglob("*")):
        if file.is_file():
            inside[f"/artifact/{file.relative_to(artifact)}"] = file
    for number in range(count):
        inside[f"/cases/inputs{number}.npz"] = folder / "cases" / f"inputs{number}.npz"
    inside["/bin/busybox"] = Path(str(shutil.which("busybox")))
    python = Path(os.path.realpath(sys.executable))
    init = _INIT.format(
        home=python.parents[1],
        path=":".join(needed["path"]),
        libraries=Path(loader).parent,
        python=python,
        level=level,
        count=count,
    )
    inside["/init"] = init.encode()
    image = folder / "image"
    (image / "isolinux").mkdir(parents=True)
    with (image / "initrd").open("wb") as stream:
        write_initramfs(stream, inside, shared_object_links(inside))
    kernel = kernel_image()
    assert kernel is not None
    shutil.copy(kernel, image / "vmlinuz")
    for name in ("isolinux.bin", "ldlinux.c32"):
        shutil.copy(_FILES[name], image / "isolinux")
    label = f"DEFAULT one\nLABEL one\n KERNEL /vmlinuz\n INITRD /initrd\n APPEND {_COMMAND_LINE}\n"
    (image / "isolinux" / "isolinux.cfg").write_text(label)
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", "machine.iso", "-b", "isolinux/isolinux.bin"]
    command += [
        "-c",
        "isolinux/boot.cat",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
        "image",
    ]
    _checked(command, folder, "the image of the emulated machine")


def _closure(folder: Path, artifact: Path, count: int) -> dict[str, Any]:
    """The files and the search path that the worker needs, from a run of it here."""
    target = folder / "closure.json"
    command = [sys.executable, "-m", "assay.compile.emulation.closure", str(target)]
    _checked([*command, str(artifact), str(folder / "cases"), str(count)], folder, "a run here")
    found: dict[str, Any] = json.loads(target.read_text())
    own = (str(folder), str(artifact))
    found["files"] = [name for name in found["files"] if not name.startswith(own)]
    return found


def _checked(command: list[str], folder: Path, what: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise EmulatorError(f"The emulated machine cannot be prepared: {what} failed: {lines[-1]}")


def _run_machine(folder: Path, timeout: float) -> str:
    """What the machine wrote to its serial line until it switched itself off."""
    (folder / "bochsrc").write_text(_CONFIGURATION.format(model=_MODEL))
    (folder / "continue").write_text("c\n")  # for the debugger that some builds of Bochs start in
    master, slave = pty.openpty()  # the text display wants a terminal
    process = subprocess.Popen(
        ["bochs", "-q", "-f", "bochsrc", "-rc", "continue"],
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(slave)
    terminal = _Terminal(master)
    serial = folder / "serial.txt"
    end = time.monotonic() + timeout
    try:
        while process.poll() is None and time.monotonic() < end:
            terminal.drain()
            if serial.is_file() and b"\nFINISHED" in serial.read_bytes().replace(b"\r", b""):
                break
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # it ignores gentler signals
        process.wait()
        terminal.close()
    text = serial.read_text(errors="replace").replace("\r", "") if serial.is_file() else ""
    if "STARTED" not in text:
        raise EmulatorError(f"The emulated machine did not start within {timeout:.0f} s: {_last_line(text)}")
    if "FINISHED" not in text:
        raise EmulatorError(f"The emulated machine was not done within {timeout:.0f} s: {_last_line(text)}")
    return text


class _Terminal:
    """Reads what the emulator draws, and throws it away: where nobody reads, it stops.

    It writes to the terminal that it was started on, and says there on which other one it shows the screen.
    """

    def __init__(self, master: int) -> None:
        self._open = [master]
        self._said = b""

    def drain(self) -> None:
        """Read what is there, or wait for a second."""
        for descriptor in select.select(self._open, [], [], 1.0)[0]:
            try:
                data = os.read(descriptor, 1 << 16)
            except OSError:  # the other end is closed
                data = b""
                time.sleep(0.1)
            if descriptor == self._open[0] and len(self._open) == 1:
                self._said = (self._said + data)[-(1 << 16) :]
                found = re.search(rb'connected to screen "([^"]+)"', self._said)
                if found:
                    screen = os.open(found[1].decode(), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
                    tty.setraw(screen)
                    self._open.append(screen)

    def close(self) -> None:
        """Close the terminals."""
        for descriptor in self._open:
            os.close(descriptor)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _receive(serial: str, folder: Path, count: int) -> None:
    """Write the files that came over the serial line. Raises VerificationError where the worker failed."""
    if "\nSUCCEEDED\n" not in serial:
        said = serial.partition("STARTED\n")[2].partition("BEGIN ")[0]
        raise VerificationError(
            f"The compiled model cannot be run in the emulated machine: {_last_line(said)}"
        )
    blocks = re.findall(r"BEGIN (\S+)\n(.*?)END\n", serial, re.DOTALL)
    for name, body in blocks:
        try:
            data = base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error as error:
            raise EmulatorError(f"What the emulated machine sent is damaged: {error}.") from None
        (folder / Path(name).name).write_bytes(data)
    if len(blocks) != count:
        raise EmulatorError(f"The emulated machine sent {len(blocks)} outputs, not {count}.")
