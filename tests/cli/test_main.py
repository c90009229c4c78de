from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import click
import pytest

from assay.cli.main import VERBS, main
from assay.errors import AssayError, StorageError


def command(verb: str) -> click.Command:
    found = importlib.import_module(f"assay.cli.commands.{verb}").command
    assert isinstance(found, click.Command)
    return found


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "assay.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


def test_the_verbs_are_those_that_scripts_rely_on():
    assert set(VERBS) == {
        "models", "targets", "devices", "device", "export", "build", "bundle", "verify", "run",
        "bench", "gate", "farm", "profile", "tune", "profdata", "inspect", "dashboard", "generate", "chat",
        "estimate", "quantize", "regressions", "results",
    }  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_and_the_options_of_every_verb(cli, verb):
    text = cli(verb, "--help").stdout
    assert "Example:" in text
    assert f"assay {verb}" in text.partition("Example:")[2]
    known = command(verb)
    several = known.commands if isinstance(known, click.Group) else {None: known}
    for name in several:
        text = cli(verb, *([name] if name else []), "--help").stdout
        for option in ("--json", "--quiet", "--verbose"):
            assert option in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_table_of_verbs_says_what_their_help_says(verb):
    first = (command(verb).help or "").splitlines()[0]
    assert VERBS[verb] == first


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_examples_exist(verb):
    several = command(verb).commands.values() if isinstance(command(verb), click.Group) else [command(verb)]
    known = {option for each in several for parameter in each.params for option in parameter.opts}
    example = "\n".join((each.help or "").partition("Example:")[2] for each in [command(verb), *several])
    used = {
        word
        for line in example.splitlines()
        if line.strip().startswith(f"assay {verb} ")
        for word in line.split("|")[0].split()
        if word.startswith("-")
    }
    assert used <= known


def test_help_lists_verbs_and_every_exit_code(cli):
    text = cli("--help").stdout
    for verb in VERBS:
        assert f"  {verb} " in text
    for code in (*range(16), 130):
        assert f"\n  {code} " in text, code


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from assay.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'rich', 'onnx', 'onnxruntime', 'tvm', 'tvm_ffi', 'torch', 'scipy'}\n"
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_an_unknown_verb_suggests_the_nearest(cli):
    result = cli("modles", code=2)
    assert "Did you mean 'models'?" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["models", "--colour"], 2, "UsageError"),
        (["build"], 2, "UsageError"),
        (["bench"], 2, "UsageError"),
        (["bench", "silero-vad", "--rounds", "none"], 2, "UsageError"),
        (["build", "resnet19"], 3, "UnknownNameError"),
        (["build", "silero-vad", "--target", "x86-64-v9"], 3, "UnknownNameError"),
        (["build", "silero-vad", "--scheme", "f33"], 3, "UnknownNameError"),
        (["build", "silero-vad", "--profile", "relase"], 3, "UnknownNameError"),
        (["bench", "silero-vad", "--engine", "onnxruntme"], 3, "UnknownNameError"),
        (["bench", "--set", "defualt"], 3, "UnknownNameError"),
        (["export", "none.onnx"], 4, "ModelError"),
        (["inspect", "no-artifact"], 9, "ArtifactError"),
        (["run", "no-artifact"], 9, "ArtifactError"),
        (["verify", "no-artifact"], 9, "ArtifactError"),
    ],
)
def test_bad_input_is_one_error_with_its_exit_code(cli, tmp_path, monkeypatch, arguments, code, kind):
    monkeypatch.chdir(tmp_path)
    assert cli.error(*arguments, code=code)["kind"] == kind
    plain = cli(*arguments, code=code)
    assert plain.stdout == ""
    assert plain.stderr.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


def fail_with(monkeypatch, error: BaseException) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr("assay.models.registry.models", broken)


def test_a_bug_is_told_as_one(cli, monkeypatch):
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    result = cli("models", code=1)
    assert "This is a bug in Assay: ZeroDivisionError: division by zero" in result.stderr
    assert "-vv" in result.stderr
    assert cli.error("models", code=1)["kind"] == "ZeroDivisionError"


def test_vv_gives_the_traceback(monkeypatch):
    import click.testing

    for error in (ZeroDivisionError("division by zero"), AssayError("It is wrong.")):
        fail_with(monkeypatch, error)
        result = click.testing.CliRunner().invoke(main, ["models", "-vv"])
        assert result.exit_code == 1
        assert "Traceback (most recent call last)" in result.stderr


def test_an_interrupt_is_130(cli, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert "Interrupted" in cli("models", code=130).stderr
    assert cli.error("models", code=130)["kind"] == "Interrupted"


def test_the_hint_of_an_error_is_shown(cli, monkeypatch):
    fail_with(monkeypatch, StorageError("The disk is full.", hint="Free some room."))
    result = cli("models", code=12)
    assert result.stderr == "error: The disk is full.\nhint: Free some room.\n"
    assert cli.error("models", code=12)["hint"] == "Free some room."


def test_a_full_disk_is_a_storage_error_wherever_it_shows(cli, monkeypatch):
    import errno

    fail_with(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere"))
    assert "/somewhere" in cli("models", code=12).stderr


@pytest.mark.parametrize(
    ("module", "extra"), [("tvm.relax", "compile"), ("onnx", "compile"), ("torch", "torch")]
)
def test_a_package_that_is_missing_names_its_extra(cli, monkeypatch, module, extra):
    fail_with(monkeypatch, ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert f".[{extra}]" in cli("models", code=13).stderr


def test_a_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "assay.cli.main", "models"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")  # noqa: PTH110
def test_results_that_no_disk_can_take_are_a_storage_error():
    with open("/dev/full", "w") as stdout:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "assay.cli.main", "models"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 12
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_exit_code_reaches_the_shell():
    assert run("models", "--bad").returncode == 2
    done = run("build", "resnet19", "--json")
    assert done.returncode == 3
    assert json.loads(done.stderr)["error"]["kind"] == "UnknownNameError"


def test_version(cli):
    from importlib.metadata import version

    assert cli("--version").stdout.strip() == f"assay {version('assay')}"
