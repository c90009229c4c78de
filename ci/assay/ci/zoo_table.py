"""Every model of the zoo for some targets, each compared with ONNX Runtime, as one table.

::

    python -m assay.ci.zoo_table --target aarch64-neon,opencl,vulkan -o zoo
    python -m assay.ci.zoo_table --target opencl -o zoo minilm silero-vad
    python -m assay.ci.zoo_table -o zoo --show

Each cell is a process of its own and a file, ``zoo/TARGET/MODEL.json``. Cells that are there are not made
again, so that the command goes on where it was stopped; ``--again`` makes those anew whose outcome it names.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from assay.ci.json_file import write_json
from assay.ci.zoo_cell import STEP, Cell, Outcome
from assay.errors import AssayError, RecordError

__all__ = ["main", "markdown", "read_cells", "run_cell"]

_LIMIT = 1800.0
_LONGEST_REASON = 400


def run_cell(folder: Path, model: str, target: str, *, limit: float, options: Sequence[str] = ()) -> Cell:
    """Make one cell in a process of its own, and write it to ``folder``. Raises StorageError.

    After ``limit`` seconds the process and those that it started are ended. ``options`` are those of
    ``assay.ci.zoo_cell``.
    """
    place = folder / target / f"{Path(model).stem}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    command = [sys.executable, "-m", "assay.ci.zoo_cell", model, target, str(place), *options]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    late = False
    try:
        _, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        late = True
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    cell = _read(place) if place.is_file() else None
    if cell is None:
        cell = _lost(model, target, process.returncode, said, limit if late else None)
        cell = msgspec.structs.replace(cell, total=round(time.perf_counter() - start, 1))
    cell = msgspec.structs.replace(cell, commit=_commit(), day=time.strftime("%Y-%m-%d", time.gmtime()))
    write_json(place, cell)
    return cell


def _lost(model: str, target: str, status: int, said: str, limit: float | None) -> Cell:
    """The cell of a process that wrote none: it was ended, or ended itself."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    steps = [line.removeprefix(STEP) for line in lines if line.startswith(STEP)]
    others = [line for line in lines if not line.startswith(STEP)]
    where = f" in the step {steps[-1]!r}" if steps else ""
    if limit is not None:
        outcome, reason = Outcome.LATE, f"It took longer than {limit:.0f} s{where}."
    elif status < 0:
        outcome, reason = Outcome.CRASHED, f"The process ended by {signal.Signals(-status).name}{where}."
    else:
        outcome, reason = Outcome.FAILED, f"The process ended with status {status}{where}."
    if limit is None and others:
        reason += f" {others[-1].removeprefix('error:').strip()}"
    return Cell(model=model, target=target, outcome=outcome, reason=reason[:_LONGEST_REASON])


def _commit() -> str | None:
    """The commit of the code that runs, with a ``+`` where files were changed; None without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=10", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def read_cells(folder: Path) -> list[Cell]:
    """All cells in ``folder``. Raises RecordError for a file that is none."""
    return [_read(path) for path in sorted(folder.glob("*/*.json"))]


def _read(path: Path) -> Cell:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cell)
    except (OSError, msgspec.MsgspecError) as error:
        raise RecordError(f"{path} is no cell of the zoo's table: {error}.") from error


def markdown(cells: Iterable[Cell], models: Sequence[str], targets: Sequence[str]) -> str:
    """Models by targets, with notes below for what does not agree."""
    known = {(cell.model, cell.target): cell for cell in cells}
    lines = [
        "| model | " + " | ".join(f"`{target}`" for target in targets) + " |",
        "| --- |" + " --- |" * len(targets),
    ]
    notes: dict[str, int] = {}
    for model in models:
        row = [_entry(known.get((model, target)), notes) for target in targets]
        lines.append(f"| `{model}` | " + " | ".join(row) + " |")
    lines += [""] if notes else []
    lines += [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(lines)


def _entry(cell: Cell | None, notes: dict[str, int]) -> str:
    """One cell in words: the error and the seconds of verification, or the outcome and a note."""
    if cell is None:
        return "not run"
    if cell.outcome is Outcome.AGREES:
        error = cell.error if cell.row_error is None else cell.row_error
        of = "" if cell.row_error is None else " of the deviation"
        return f"{error or 0.0:.1e}{of}, {cell.seconds.get('verify', 0.0):.0f} s"
    reason = " ".join((cell.reason or "").split()) or "no reason known"
    return f"{cell.outcome} ({notes.setdefault(reason, len(notes) + 1)})"


def _models() -> list[str]:
    from assay.models.registry import models

    return list(models())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 where every model that was asked for agrees or is refused with a reason."""
    from assay.compile.targets import find_targets

    parser = argparse.ArgumentParser(prog="python -m assay.ci.zoo_table", description=__doc__)
    parser.add_argument("models", nargs="*", help="default: the whole zoo")
    parser.add_argument("--target", default="aarch64-neon,opencl,vulkan", help="targets with commas")
    parser.add_argument("-o", "--output", type=Path, default=Path("zoo"), help="folder of the cells")
    parser.add_argument("--limit", type=float, default=_LIMIT, help="seconds of a cell")
    parser.add_argument("--scheme", help="as of assay build")
    parser.add_argument("--cache-dtype", help="of language models; default: float32")
    parser.add_argument("--cache", type=Path, help="the build cache")
    parser.add_argument(
        "--again", metavar="OUTCOMES", default="", help="make these anew, with commas, or all"
    )
    parser.add_argument("--show", action="store_true", help="make nothing, print the table of what is there")
    options = parser.parse_args(arguments)
    try:
        targets = [target.name for target in find_targets(options.target)]
        models = options.models or _models()
        if not options.show:
            _make(options, models, targets)
        cells = [
            cell for cell in read_cells(options.output) if cell.model in models and cell.target in targets
        ]
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(markdown(cells, models, targets))
    wrong = (Outcome.FAILED, Outcome.CRASHED, Outcome.LATE)
    return 1 if any(cell.outcome in wrong for cell in cells) else 0


def _make(options: argparse.Namespace, models: Sequence[str], targets: Sequence[str]) -> None:
    """Make the cells that are missing, or wanted again, target by target."""
    passed = [
        word
        for name in ("scheme", "cache_dtype", "cache")
        if (value := getattr(options, name)) is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    again = set(options.again.split(","))
    known = {(cell.model, cell.target): cell for cell in read_cells(options.output)}
    for target in targets:
        for model in models:
            cell = known.get((model, target))
            if cell is not None and not again & {str(cell.outcome), "all"}:
                continue
            cell = run_cell(options.output, model, target, limit=options.limit, options=passed)
            print(_line(cell), file=sys.stderr, flush=True)


def _line(cell: Cell) -> str:
    what = cell.reason if cell.error is None else f"error {cell.error:.2g}"
    return f"{cell.target} {cell.model}: {cell.outcome}, {what or ''} ({cell.total:.0f} s)"


if __name__ == "__main__":
    raise SystemExit(main())
