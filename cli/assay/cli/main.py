"""The ``assay`` command: verbs that are imported when they are used, and errors that become exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from assay.cli.failures import exit_code_table, report_failure
from assay.cli.output import Output

__all__ = ["VERBS", "main"]

# The first lines of the verbs' help: so that `assay --help` need not import them.
VERBS = {
    "models": "List the models that Assay knows by name.",
    "targets": "List what can be compiled for, and what this machine runs.",
    "devices": "List the devices of this machine, by API, and those of other machines.",
    "device": "Lend this machine to others as a device, keep track of such devices, make keys.",
    "export": "Export a model to canonical ONNX.",
    "quantize": "Quantize a model, and report what it costs.",
    "build": "Compile models to artifacts, each verified against ONNX Runtime.",
    "bundle": "Write a folder with all that a device needs to run an artifact.",
    "verify": "Compare an artifact's outputs with ONNX Runtime's again.",
    "run": "Run an artifact on files, or on generated inputs.",
    "generate": "Continue a text with a language model, and print what comes as it comes.",
    "chat": "Chat with a language model, in the template that it was trained with.",
    "estimate": "Say how much memory a language model takes, and whether it fits.",
    "bench": "Measure artifacts beside ONNX Runtime and PyTorch.",
    "gate": "Compare two commits, and say what got slower, larger, less exact, or broke.",
    "dashboard": "Write a static site of all figures over commits.",
    "regressions": "List the commits at which benchmarks changed, and by how much.",
    "results": "Bring records of measurements into a team's database.",
    "farm": "Build, tune and measure a matrix of models, on one machine or on many.",
    "profile": "Show where the time of a run goes, kernel by kernel.",
    "tune": "Search faster tiles for a model, on this machine or on a device of another.",
    "profdata": "Record, merge and show profile data, which guide `assay build --profile pgo`.",
    "inspect": "Show what is in an artifact.",
}

_BROKEN_PIPE = 128 + 13  # what a shell shows for a process that SIGPIPE ended

_EXAMPLE = """\b
Example:
  assay build light-squeezenet -o squeezenet
  assay run squeezenet
  assay bench squeezenet
"""


class AssayGroup(click.Group):
    """Loads a verb when it is used, and ends with the exit code of whatever went wrong."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which data flows through them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now; None for an unknown one."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"assay.cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown verb suggests the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            if near and error.message.startswith("No such command"):
                message = f"No such command {args[0]!r}. Did you mean {near[0]!r}?"
                raise click.UsageError(message, ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl(exit_code_table())

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but a reader that went away (``| head``) ends the command without a word."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # The interpreter flushes stdout once more at exit, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(_BROKEN_PIPE) from None
        return result

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> int:
        """Run the command; exits with its code, or returns it where ``standalone_mode`` is False."""
        arguments = list(sys.argv[1:] if args is None else args)
        # Set before the options are parsed, for errors of parsing.
        output = Output(json="--json" in arguments)
        try:
            result = super().main(
                arguments, prog_name or "assay", complete_var, standalone_mode=False, obj=output, **extra
            )
            code = result if isinstance(result, int) else 0
        except Exception as error:
            code = report_failure(error, output)
        if standalone_mode:
            sys.exit(code)
        return code


@click.command(
    cls=AssayGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="exit codes",
    help="Compile models with Apache TVM, prove that they are right, run them and compare their speed.\n\n"
    + _EXAMPLE,
)
@click.version_option(package_name="assay", prog_name="assay", message="%(prog)s %(version)s")
def main() -> None:
    """Do nothing of its own: the verbs do."""


if __name__ == "__main__":
    main()
