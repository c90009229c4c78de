"""One model for every target, and one table of what came of it: compiled, linked, executed, how far off.

::

    python -m assay.ci.target_table                       # silero-vad for all targets
    python -m assay.ci.target_table light-squeezenet --target aarch64-neon,opencl

Each build is a process of its own, so that one that fails leaves the others alone. ``nox -s targets`` is the
same with everything installed that it takes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from assay.ci.json_file import write_json
from assay.errors import AssayError
from assay.results.report import format_value
from assay.runtime.manifest import Execution

if TYPE_CHECKING:
    from assay.runtime.manifest import Level

__all__ = ["TargetRow", "build_row", "main", "markdown"]

_MODEL = "silero-vad"
_WARM_UP, _REPEATS = 1, 5
_TIMEOUT = 1800.0  # seconds of one build: verification on a device that the CPU plays is slow
# Systems that are linked for too, by a target for each.
_PLATFORMS = (
    ("x86-64-v3", "linux-x86_64"),
    ("aarch64-neon-dotprod", "macos-aarch64"),
    ("x86-64-v3", "macos-x86_64"),
    ("x86-64-v3", "windows-x86_64"),
)
_LINKED = {
    ".so": "shared library",
    ".dylib": "shared library",
    ".dll": "shared library",
    ".wasm": "WebAssembly module",
    ".cubin": "cubin",
    ".ptx": "PTX",
    ".co": "code object",
    ".metal": "Metal source, which the driver compiles",
    ".cl": "OpenCL C, which the driver compiles",
    ".wgsl": "WGSL, which the driver compiles",
}


class TargetRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one target.

    ``linked``: the form of its code. ``executed``: where the code ran, or what else was compared. ``error``:
    the largest absolute one against ONNX Runtime. ``seconds``: the median of a run, where this process can
    make one, and otherwise ``untimed`` says why not. ``bytes``: of the artifact. ``problem``: why there is
    none.
    """

    target: str
    linked: str | None = None
    executed: str | None = None
    error: float | None = None
    seconds: float | None = None
    untimed: str | None = None
    bytes: int | None = None
    problem: str | None = None


def build_row(model: str, target: str, folder: Path, *, platform: str | None = None) -> TargetRow:
    """Build ``model`` for ``target`` in ``folder``, and say what came of it. A failure is in the row.

    ``platform``: the system whose bundle the code is for, where it is not that of the target.
    """
    place = folder / f"{target}-{platform}"
    command = [sys.executable, "-m", "assay.cli.main", "build", model, "--target", target, "-o", str(place)]
    if platform is not None:
        command += ["--platform", platform]
        target = f"{target} for {platform}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return TargetRow(target=target, problem=f"the build took longer than {_TIMEOUT:.0f} s")
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("error:")]
        reason = said[0].removeprefix("error:").strip() if said else f"exit code {done.returncode}"
        return TargetRow(target=target, problem=reason)
    return _described(model, target, place)


def _described(model: str, target: str, place: Path) -> TargetRow:
    from assay.runtime.artifact import open_artifact

    manifest = open_artifact(place).manifest
    (level,) = manifest.levels
    suffixes = (PurePosixPath(name).suffix for name in sorted(manifest.files) if name.startswith("lib/"))
    forms = dict.fromkeys(_LINKED[suffix] for suffix in suffixes if suffix in _LINKED)
    seconds, untimed = _timed(model, place)
    if seconds is None and level.executed is Execution.EMULATED:
        seconds = _timed_under_emulator(model, place, level)
    errors = [case.max_absolute_error for case in level.verification.cases]
    return TargetRow(
        target=target,
        linked=" and ".join(forms),
        executed=_where(level),
        error=max(errors, default=None),
        seconds=seconds,
        untimed=untimed,
        bytes=sum(file.bytes for file in manifest.files.values()),
    )


def _where(level: Level) -> str:
    note = level.verification.note
    if level.executed.value == "native":
        return "this CPU"
    if level.executed.value == "emulated":
        return note or "under an emulator"
    return f"never. {note}" if note else "never"


def _timed(name: str, place: Path) -> tuple[float | None, str | None]:
    """Median seconds of a run on the model's own inputs, or why there is none."""
    import assay.runtime
    from assay.models.inputs import make_inputs
    from assay.models.registry import find_model

    inputs = make_inputs(find_model(name), {}, 0)
    try:
        model = assay.runtime.load(place)
        times = []
        for i in range(_WARM_UP + _REPEATS):
            start = time.perf_counter()
            model.run(inputs)
            if i >= _WARM_UP:
                times.append(time.perf_counter() - start)
    except AssayError as error:
        return None, error.message
    return statistics.median(times), None


def _timed_under_emulator(name: str, place: Path, level: Level) -> float | None:
    """The mean seconds of a run under QEMU's user mode or Wine, as the native runtime takes them."""
    from assay.compile.reverify import user_mode_of
    from assay.models.inputs import make_inputs
    from assay.models.registry import find_model

    emulator = user_mode_of(level)
    if emulator is None:
        return None
    return emulator.seconds(place, make_inputs(find_model(name), {}, 0), repeats=_REPEATS)


def markdown(model: str, rows: Sequence[TargetRow]) -> str:
    """The table, in Markdown."""
    lines = [
        f"`{model}` for {len(rows)} targets; errors are the largest absolute ones against ONNX Runtime.",
        "",
        "| target | compiled | linked | executed | error | a run | artifact |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        if row.problem is not None:
            lines.append(f"| {row.target} | no: {_cell(row.problem)} | none | none | none | none | none |")
            continue
        error = "nothing was compared" if row.error is None else f"{row.error:.1e}"
        run = format_value(row.seconds, "s") if row.seconds is not None else f"not timed: {row.untimed}"
        size = "" if row.bytes is None else f"{row.bytes / 1e6:.2f} MB"
        cells = (row.target, "yes", row.linked or "", row.executed or "", error, run, size)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 where every target was built."""
    from assay.compile.targets import find_targets, gpu_targets, targets

    everything = ",".join([*targets(), *gpu_targets()])
    parser = argparse.ArgumentParser(prog="python -m assay.ci.target_table", description=__doc__)
    parser.add_argument("model", nargs="?", default=_MODEL)
    parser.add_argument("--target", default=everything, help="targets with commas (default: all)")
    parser.add_argument("-o", "--output", type=Path, help="where to write the rows, as JSON")
    options = parser.parse_args(arguments)
    try:
        wanted = [target.name for target in find_targets(options.target)]
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    rows = []
    with tempfile.TemporaryDirectory(prefix="assay-targets-") as folder:
        for target in wanted:
            print(f"{target} ...", file=sys.stderr, flush=True)
            rows.append(build_row(options.model, target, Path(folder)))
        for target, platform in _PLATFORMS:
            if target in wanted:
                print(f"{target} for {platform} ...", file=sys.stderr, flush=True)
                rows.append(build_row(options.model, target, Path(folder), platform=platform))
    if options.output is not None:
        write_json(options.output, rows)
    print(markdown(options.model, rows))
    return 0 if all(row.problem is None for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
