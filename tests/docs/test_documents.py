"""The documentation is true where a machine can tell: links, commands, sessions, names, exit codes."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import click
import pytest

from assay import errors

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
VERBS = ("models", "targets", "export", "build", "verify", "run", "bench", "profile", "inspect")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_of(text: str) -> str:
    """What stands in code blocks and between backticks."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", rest)])


def heading_anchors(text: str) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """Relative links of a document that lead nowhere."""
    broken = []
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (
            anchor and anchor not in heading_anchors(target.read_text(encoding="utf-8"))
        ):
            broken.append(link)
    return broken


def nox_sessions() -> set[str]:
    """Names of the sessions that noxfile.py defines."""
    import nox.registry

    load_noxfile()
    return set(nox.registry.get())


@functools.cache
def load_noxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_group() -> click.Group:
    from assay.cli.main import main

    assert isinstance(main, click.Group)
    return main


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(path: Path) -> None:
    assert broken_links(path) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# The heading\n")
    document = tmp_path / "a.md"
    document.write_text("[a](there.md) [b](there.md#the-heading) [c](gone.md) [d](there.md#gone) [e](#gone)")
    assert broken_links(document) == ["gone.md", "there.md#gone", "#gone"]


def one_of_several(group: click.Group, context: click.Context, arguments: str) -> click.Command:
    """The command of a verb that has several; the verb itself where its name stands alone."""
    words = arguments.split()
    if not words or words[0].startswith("-"):
        return group
    command = group.get_command(context, words[0])
    assert command is not None, f"assay {group.name} {words[0]}"
    return command


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(path: Path) -> None:
    code = code_of(path.read_text(encoding="utf-8"))
    group = command_group()
    context = click.Context(group)
    for verb, arguments in re.findall(r"(?:^|[ /])assay ([a-z]+)\b([^\n|&;]*)", code, re.MULTILINE):
        command = group.get_command(context, verb)
        assert command is not None, f"assay {verb}"
        if isinstance(command, click.Group):
            command, verb = one_of_several(command, context, arguments), f"{verb}{arguments[:20]}"
        known = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        used = set(re.findall(r"(?:^|\s|\[)(--?[a-z][a-z-]*)", arguments)) - {"--help"}
        assert used <= known, f"assay {verb}: {', '.join(sorted(used - known))}"
    sessions = nox_sessions()
    for session in re.findall(r"nox (?:-s|--session) (\S+)", code):
        assert session in sessions, f"nox -s {session}"


def test_the_verbs_that_scripts_rely_on_exist_and_are_documented() -> None:
    group = command_group()
    registered = set(group.list_commands(click.Context(group)))
    assert registered >= set(VERBS)
    documented = set(re.findall(r"^#+ `?assay ([a-z]+)", read("docs/cli.md"), re.MULTILINE))
    assert documented == registered


def test_every_exit_code_is_documented() -> None:
    classes = {getattr(errors, name) for name in errors.__all__}
    codes = {cls.__name__: cls.exit_code for cls in classes}
    assert len(set(codes.values())) == len(codes)
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)`", read("docs/cli.md"), re.MULTILINE))
    assert {name: int(code) for code, name in rows.items()} == codes


def test_every_model_is_documented() -> None:
    from assay.models.zoo import ZOO

    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", read("docs/models.md"), re.MULTILINE)
    assert rows == [spec.name for spec in ZOO]


def test_nox_builds_for_every_target() -> None:
    from assay.compile.targets import gpu_targets, targets

    expected = ("native", *targets(), *gpu_targets())
    assert expected == load_noxfile().TARGETS
    assert {f"build-{name}" for name in expected} <= nox_sessions()


def test_every_session_says_what_it_does() -> None:
    import nox.registry

    load_noxfile()
    assert [name for name, session in nox.registry.get().items() if not (session.__doc__ or "").strip()] == []


def test_ci_runs_the_readmes_test_command() -> None:
    commands = [line for line in code_of(read("README.md")).splitlines() if "venv" in line]
    assert len(commands) == 2, "the README gives two commands: the main job, and the tests"
    assert commands[1] in read(".ci/run").splitlines()


def test_the_changelog_has_an_entry_for_what_is_unreleased() -> None:
    text = read("CHANGELOG.md")
    assert re.search(r"^## \[Unreleased\]\n\n### \w+\n\n- ", text, re.MULTILINE)
