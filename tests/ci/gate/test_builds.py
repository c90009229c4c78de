from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.ci.gate.builds import BuildOptions, Outcome, build, make_inputs
from assay.ci.gate.environments import Environment
from assay.errors import GateInfrastructureError


class Assay:
    """Stands in for a side's interpreter: answers as the command line would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.tree.mkdir()
        self.environment = Environment(python=folder / "python")

    def answers(self, body: str) -> None:
        self.environment.python.write_text(f'#!/bin/sh\necho "$@" > "{self.folder}/arguments"\n{body}\n')
        self.environment.python.chmod(0o755)

    def fails(self, message: str, code: int) -> None:
        told = json.dumps({"error": {"kind": "E", "message": message, "hint": None, "exit_code": code}})
        self.answers(f"echo first >&2; echo '{told}' >&2; exit {code}")

    def build(self, model: str = "net", **options):
        place = self.folder / "artifact"
        return build(
            model, self.tree, self.environment, place, self.folder / "cache", BuildOptions(**options)
        )


@pytest.fixture
def assay(tmp_path) -> Assay:
    return Assay(tmp_path)


@pytest.mark.parametrize("cached", [True, False])
def test_what_was_built_has_cpu_time_unless_the_cache_had_it(assay, cached):
    answer = json.dumps([{"cached": cached}])
    assay.answers(f"mkdir '{assay.folder}/artifact'; echo '{answer}'")
    found = assay.build(scheme="int8", target="x86-64-v3")
    assert (found.outcome, found.artifact) == (Outcome.BUILT, assay.folder / "artifact")
    assert (found.cpu_seconds is None) == cached
    arguments = (assay.folder / "arguments").read_text().split()
    assert arguments[:4] == ["-P", "-m", "assay.cli.main", "build"]
    assert "--scheme int8" in " ".join(arguments)
    assert "--target x86-64-v3" in " ".join(arguments)


def test_a_file_that_the_tree_lacks_is_missing(assay):
    assert assay.build("models/net.onnx").outcome is Outcome.MISSING


def test_a_name_that_the_side_does_not_know_is_missing(assay):
    assay.fails("There is no model named 'net'.", 3)
    assert assay.build().outcome is Outcome.MISSING


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'Traceback' >&2; echo 'ImportError: no tvm' >&2; exit 1", "ImportError: no tvm"),
        ("exit 3", "It ended with exit code 3, and said nothing."),
        ("kill -SEGV $$", "It was ended by signal 11."),
        ("echo '[]'", "assay build ended well, and wrote no artifact."),
        ("sleep 5", "assay build did not finish within 0.3 s."),
        ("echo '{\"error\": 1}' >&2; exit 1", '{"error": 1}'),
    ],
)
def test_what_does_not_build_is_broken_and_says_why(assay, body, reason):
    assay.answers(body)
    found = assay.build(timeout=0.3 if "sleep" in body else 60.0)
    assert (found.outcome, found.reason) == (Outcome.BROKEN, reason)


def test_an_error_of_assay_is_told_in_its_words(assay):
    assay.fails("The outputs differ.", 8)
    assert assay.build().reason == "The outputs differ."


@pytest.mark.parametrize("code", [12, 13])
def test_a_full_disk_or_a_missing_package_is_not_the_changes_fault(assay, code):
    assay.fails("No room.", code)
    with pytest.raises(GateInfrastructureError, match=r"No room\."):
        assay.build()


def test_an_interpreter_that_is_not_there_is_broken(assay):
    assert "cannot be started" in str(assay.build().reason)


def inputs(assay) -> Path | str:
    return make_inputs(
        assay.folder / "artifact",
        assay.tree,
        assay.environment,
        assay.folder / "inputs",
        sizes=["batch=2"],
        seed=1,
        timeout=60,
    )


def test_inputs_are_what_was_recorded(assay):
    assay.answers(f"mkdir '{assay.folder}/inputs'; touch '{assay.folder}/inputs/000000.npz'")
    assert inputs(assay) == assay.folder / "inputs" / "000000.npz"
    assert "--size batch=2" in (assay.folder / "arguments").read_text()


def test_inputs_that_cannot_be_made_say_why(assay):
    assay.answers("true")
    assert inputs(assay) == "assay run recorded no inputs."
    assay.fails("It crashed.", 9)
    assert inputs(assay) == "It crashed."


def test_a_folder_and_a_name_of_the_hub_are_left_to_assay(assay):
    assay.fails("There is no model named 'some/model'.", 3)
    assert assay.build("some/model").outcome is Outcome.MISSING
    assert "some/model" in (assay.folder / "arguments").read_text()
