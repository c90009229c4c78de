"""The recipes for CI services: valid by the services' own schemas, and calling what is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "ci" / "recipes"
SCHEMAS = {
    "github/action.yml": "vendor.github-actions",
    "github/models.yml": "vendor.github-workflows",
    "github/project.yml": "vendor.github-workflows",
    "gitlab/gate.yml": "vendor.gitlab-ci",
    "gitlab/models.yml": "vendor.gitlab-ci",
    "gitlab/project.yml": "vendor.gitlab-ci",
}
PROJECTS = ("github/project.yml", "gitlab/project.yml", "shell/project.sh")
GATES = ("github/project.yml", "gitlab/project.yml", "gitlab/gate.yml", "shell/project.sh", "shell/gate.sh")
FOR_MODELS = ("github/models.yml", "gitlab/models.yml")
# What a project's recipe may run beside nox: the service's own plumbing, and the shell.
PLUMBING = {"git", "gh", "cat", "if", "then", "exit", "true", "fi"}


@pytest.fixture(scope="module")
def sessions() -> list[str]:
    """The sessions of noxfile.py."""
    # In a process of its own: nox refuses to register a session twice.
    code = (
        "import json, runpy, nox.registry as r; runpy.run_path('noxfile.py'); print(json.dumps([*r.get()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def read(name: str) -> Any:
    return yaml.safe_load((RECIPES / name).read_text(encoding="utf-8"))


def scripts(recipe: Any) -> Iterator[str]:
    """What a recipe gives to a shell."""
    if isinstance(recipe, dict):
        for key, value in recipe.items():
            if key in {"run", "script", "before_script"}:
                yield from [value] if isinstance(value, str) else value
            else:
                yield from scripts(value)
    elif isinstance(recipe, list):
        for value in recipe:
            yield from scripts(value)


def programs(script: str) -> set[str]:
    """What the commands of a script begin with; ``nox`` for what starts it."""
    found = set()
    for line in re.split(r"\n|;|&&|\|\||\{|\}", re.sub(r"\$\{\{.*?\}\}", "", script)):
        words = shlex.split(line)
        if not words or words[0].startswith("#"):
            continue
        starts_nox = words[0] in {"pipx", "python", "nox"} and "nox" in words
        found.add("nox" if starts_nox else words[0])
    return found


def matrices(recipe: Any) -> Iterator[list[str]]:
    """Every list of targets in a recipe."""
    if isinstance(recipe, dict):
        for key, value in recipe.items():
            if str(key).lower() == "target" and isinstance(value, list):
                yield value
            else:
                yield from matrices(value)
    elif isinstance(recipe, list):
        for value in recipe:
            yield from matrices(value)


def test_every_recipe_is_looked_at() -> None:
    files = {path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*") if path.is_file()}
    assert files == {*SCHEMAS, "shell/gate.sh", "shell/project.sh"}


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS.values())))
def test_recipes_fit_the_schema_of_their_service(schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    if schema == "vendor.gitlab-ci":
        command += ["--data-transform", "gitlab-ci"]
    files = [RECIPES / name for name, each in SCHEMAS.items() if each == schema]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["github/project.yml", "gitlab/project.yml"])
def test_a_projects_recipe_calls_nox_and_nothing_else(name: str) -> None:
    found = [programs(script) for script in scripts(read(name))]
    assert set().union(*found) - PLUMBING == {"nox"}
    assert sum("nox" in each for each in found) >= 7


@pytest.mark.parametrize("name", PROJECTS)
def test_a_projects_recipe_calls_sessions_that_exist(name: str, sessions: list[str]) -> None:
    text = (RECIPES / name).read_text(encoding="utf-8")
    lists = re.findall(r"session: \[(.*)\]", text, re.IGNORECASE)
    named = {word for words in lists for word in words.split(", ")}
    for words in re.findall(r"--session ([a-z_ ]+?)(?: --|$)", text, re.MULTILINE):
        named |= set(words.split())
    assert named <= set(sessions)
    assert {"gate", "tune", "bench", "asv", "dashboard", "lint", "types", "tests", "runtime_only"} <= named
    assert "--session build-" in text or '--session "build-' in text


@pytest.mark.parametrize("name", ["github/project.yml", "gitlab/project.yml"])
def test_a_projects_recipe_builds_for_every_target(name: str, sessions: list[str]) -> None:
    targets = [session.removeprefix("build-") for session in sessions if session.startswith("build-")]
    assert list(matrices(read(name))) == [targets]


@pytest.mark.parametrize("name", GATES)
def test_the_options_of_the_gate_exist(name: str) -> None:
    from assay.cli.main import main

    assert isinstance(main, click.Group)
    gate = main.get_command(click.Context(main), "gate")
    assert gate is not None
    known = {option for parameter in gate.params for option in parameter.opts}
    text = (RECIPES / name).read_text(encoding="utf-8")
    given = scripts(yaml.safe_load(text)) if name.endswith(".yml") else [text.replace("\\\n", "")]
    calls = [
        line
        for script in given
        for line in script.splitlines()
        if re.search(r"assay\"? gate |--session gate ", line) and not line.startswith("#")
    ]
    assert len(calls) == 1
    used = set(re.findall(r"(?<=\s)--[a-z]+", re.split(r"\bgate (?:-- )?", calls[0], maxsplit=1)[1]))
    assert {"--base", "--markdown", "--junit"} <= used | {"--base"}
    assert used <= known


@pytest.mark.parametrize("name", FOR_MODELS)
def test_a_repository_of_models_needs_less_than_ten_lines(name: str) -> None:
    lines = (RECIPES / name).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if not line.startswith("#")]) < 10


def test_the_examples_use_the_recipes_that_are_here() -> None:
    github, gitlab = (read(name) for name in FOR_MODELS)
    (step,) = github["jobs"]["gate"]["steps"]
    assert step["uses"] == "OWNER/assay/ci/recipes/github@main"
    assert set(step["with"]) <= set(read("github/action.yml")["inputs"])
    (included,) = gitlab["include"]
    assert (ROOT / included["file"]).is_file()
    assert set(gitlab["variables"]) <= set(read("gitlab/gate.yml")["variables"])


def test_the_action_gives_the_script_what_it_reads() -> None:
    (step,) = (step for step in read("github/action.yml")["runs"]["steps"] if step.get("id") == "gate")
    script = (RECIPES / "shell" / "gate.sh").read_text()
    for name in step["env"].keys() - {"OPTIONS"}:
        assert re.search(rf"\$\{{{name}:", script), name
    # GitHub has the whole repository beside an action; the script and the sources are found from there.
    folder = RECIPES / "github"
    assert (folder / "../shell/gate.sh").resolve() == RECIPES / "shell" / "gate.sh"
    assert step["env"]["ASSAY"].startswith("${{ github.action_path }}/../../..[")
    assert (folder / "../../..").resolve() == ROOT


@pytest.mark.parametrize("name", ["shell/gate.sh", "shell/project.sh"])
def test_scripts_can_be_run(name: str) -> None:
    script = RECIPES / name
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def verb(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the project's script with an interpreter that says what it is asked for."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\necho\n')
    python.chmod(0o755)
    command = ["bash", RECIPES / "shell" / "project.sh", *arguments]
    environment = {**os.environ, "PYTHON": str(python)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["checks"], "--session|lint|types|docs|tests|runtime_only|"),
        (["build", "webgpu"], "--session|build-webgpu|--|light-squeezenet|"),
        (["build", "native", "a", "b"], "--session|build-native|--|a|b|"),
        (["gate", "main"], "--session|gate|--|--base|main|"),
        (["nightly"], "--session|bench|asv|dashboard|"),
    ],
)
def test_verbs_of_the_projects_script(tmp_path: Path, arguments: list[str], asked: str) -> None:
    done = verb(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"-m|nox|--non-interactive|{asked}")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["build"], ["gate"], ["tune"]])
def test_wrong_verbs_of_the_projects_script_end_with_an_error(tmp_path: Path, arguments: list[str]) -> None:
    done = verb(tmp_path, *arguments)
    assert done.returncode not in (0, 127)
    assert done.stdout == ""
    assert done.stderr


def gate(folder: Path, virtual: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the gate's script in ``folder`` with the assay of ``virtual``."""
    environment = {**os.environ, "VENV": str(virtual), **variables}
    command = ["bash", str(RECIPES / "shell" / "gate.sh"), "--budget", "0", "--no-instructions"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize(
    ("ended", "inconclusive", "expected"),
    [(0, "fail", 0), (24, "fail", 24), (24, "pass", 0), (23, "pass", 23), (26, "pass", 26)],
)
def test_the_gates_script_lets_nothing_pass_but_what_is_not_clear(
    tmp_path: Path, ended: int, inconclusive: str, expected: int
) -> None:
    assay = tmp_path / "bin" / "assay"
    assay.parent.mkdir()
    assay.write_text(f'#!/bin/sh\necho "$@"\nexit {ended}\n')
    assay.chmod(0o755)
    done = gate(tmp_path, tmp_path, INCONCLUSIVE=inconclusive, BASE="main", MODELS="a.onnx,b.onnx")
    assert done.returncode == expected
    assert done.stdout.startswith("gate --base main --models a.onnx,b.onnx --head HEAD")
    assert done.stdout.endswith("--budget 0 --no-instructions\n")


@pytest.mark.slow
def test_the_gates_script_judges_a_repository_of_models(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    def commit() -> None:
        git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
        for arguments in (["add", "."], ["commit", "-q", "-m", "models", "--allow-empty"]):
            subprocess.run([*git, *arguments], check=True)

    model = tmp_path / "models" / "ranker.onnx"
    model.parent.mkdir()
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "ranker", shape[:1], shape[1:])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), model)
    (tmp_path / "assay-gate.toml").write_text('models = ["models/ranker.onnx"]\nbase = "HEAD^1"\n')
    (tmp_path / ".gitignore").write_text("gate.*\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    commit()
    commit()
    done = gate(tmp_path, Path(sys.prefix))
    assert done.returncode == 24, done.stdout + done.stderr
    assert "inconclusive" in (tmp_path / "gate.md").read_text()
    assert (tmp_path / "gate.xml").read_text().startswith("<?xml")
    assert json.loads((tmp_path / "gate.json").read_text())

    model.write_bytes(model.read_bytes()[:40])
    commit()
    done = gate(tmp_path, Path(sys.prefix), INCONCLUSIVE="pass")
    assert done.returncode == 23, done.stdout + done.stderr
    assert "broken" in (tmp_path / "gate.md").read_text()
