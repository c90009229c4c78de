"""Tasks of a device: each runs in a fresh process, in a folder of its own, and may crash or hang."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from assay.runtime.remote.messages import Done
from assay.runtime.remote.wire import digest_of

__all__ = ["TASKS", "run_task"]

TASKS: Mapping[str, tuple[str, ...]] = {
    "measure": ("assay.benchmarks.worker",),
    "describe": ("assay.benchmarks.describe",),
    "kernels": ("assay.compile.tune.kernel_round",),
}
"""Modules by the name of the task, with their arguments: run with ``python -m``, the request on stdin."""

_POLL_SECONDS = 2.0
_MOST_FILES = 64
_MESSAGE_CHARACTERS = 1000


def run_task(
    module: tuple[str, ...],
    request: bytes,
    folder: Path,
    seconds: float,
    still_wanted: Callable[[], bool],
) -> Done:
    """Run ``python -m`` with ``module`` in ``folder`` until it ends, ``seconds`` are over, or nobody waits.

    ``still_wanted`` is asked every two seconds. Files that are in ``folder`` afterwards and were not before
    are the result.
    """
    given = _files(folder)
    errors = folder.with_name(folder.name + ".stderr")
    deadline = time.monotonic() + seconds
    expired = False
    with errors.open("wb") as stream:
        # A session of its own, so that whatever the task starts can be ended with it.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            cwd=folder,
            start_new_session=True,
        )
        try:
            _give(process, request)
            while process.poll() is None:
                left = deadline - time.monotonic()
                expired = left <= 0
                if expired or not still_wanted():
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(_POLL_SECONDS, left))
        finally:
            _end(process)
    made = {name: digest_of(path) for name, path in _files(folder).items() if name not in given}
    return Done(
        status=process.returncode,
        message=_last_line(errors),
        expired=expired,
        files=dict(sorted(made.items())[:_MOST_FILES]),
    )


def _give(process: subprocess.Popen[bytes], request: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(request)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, if it runs, and everything that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    path.unlink()
    return lines[-1].strip()[:_MESSAGE_CHARACTERS] if lines else ""
