"""From exceptions to one message on stderr and an exit code."""

from __future__ import annotations

import errno
import inspect
import json
import traceback
from collections.abc import Iterator

import click

from assay import errors
from assay.cli.output import Output
from assay.errors import AssayError, MissingDependencyError, StorageError

__all__ = ["INTERRUPTED", "as_assay_error", "exit_code_table", "report_failure"]

INTERRUPTED = 130

# Which extra brings a module that was not found.
_EXTRAS = {
    **dict.fromkeys(
        (
            "tvm",
            "onnx",
            "onnxruntime",
            "scipy",
            "filelock",
            "gguf",
            "platformdirs",
            "psutil",
            "PIL",
            "safetensors",
            "tokenizers",
        ),
        "compile",
    ),
    **dict.fromkeys(("torch", "transformers", "onnxscript"), "torch"),
    "optuna": "tune",
    "packaging": "gate",
    "distributed": "farm",
    "tornado": "tracker",
    "jinja2": "generate",
    **dict.fromkeys(("sqlalchemy", "psycopg", "ruptures"), "history"),
}
_PACKAGES = {"tvm": "apache-tvm", "PIL": "pillow"}
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


def exit_code_table() -> list[tuple[str, str]]:
    """Every exit code with its meaning, from the error tree itself."""
    kinds = sorted(_kinds(AssayError), key=lambda kind: kind.exit_code)
    rows = [("0", "Everything went well."), ("1", "A bug in Assay.")]
    rows += [(str(kind.exit_code), (inspect.getdoc(kind) or "").splitlines()[0]) for kind in kinds]
    return [*rows, (str(INTERRUPTED), "Interrupted (Ctrl-C).")]


def _kinds(root: type[AssayError]) -> Iterator[type[AssayError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
        yield from _kinds(kind)


def report_failure(error: Exception, output: Output) -> int:
    """Tell stderr what went wrong, once, and give the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        _tell(output, "Interrupted", "Interrupted.", None, INTERRUPTED)
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        code = errors.UsageError.exit_code
        _tell(output, "UsageError", error.format_message(), _usage_hint(error), code)
        return code
    known = as_assay_error(error)
    if known is None:
        if output.verbosity < 2:
            hint = "Please report it; run the command again with -vv for the traceback."
        else:
            hint = "Please report it with this traceback."
            _traceback(error)
        message = f"This is a bug in Assay: {type(error).__name__}: {error}"
        _tell(output, type(error).__name__, message, hint, AssayError.exit_code)
        return AssayError.exit_code
    if output.verbosity >= 2:
        _traceback(error)
    _tell(output, type(known).__name__, known.message, known.hint, known.exit_code)
    return known.exit_code


def as_assay_error(error: Exception) -> AssayError | None:
    """The error as one of Assay's kinds; None when it is none that a user can cause."""
    if isinstance(error, AssayError):
        return error
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module in _EXTRAS:
            return MissingDependencyError(_PACKAGES.get(module, module), _EXTRAS[module])
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
        where = f" {error.filename}" if error.filename else ""
        return StorageError(f"Cannot write{where}: {error.strerror}.")
    return None


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "assay"
    return f"See: {command} --help"


def _tell(output: Output, kind: str, message: str, hint: str | None, code: int) -> None:
    if output.json:
        body = {"kind": kind, "message": message, "hint": hint, "exit_code": code}
        click.echo(json.dumps({"error": body}), err=True)
        return
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {hint}", err=True)


def _traceback(error: Exception) -> None:
    click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
