"""asv's own commands on commits of a scratch repository with Assay's sources, one of which is slower."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from assay.ci import asv_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("benchmarks", "ci", "cli", "compile", "models", "results", "runtime")
# One figure is one process: the planted step is far above the noise of any machine.
SETTINGS = """
models = ["silero-vad"]
language_models = []
kernels = ["softmax"]
processes = 1
rounds = 1
seconds = 0.01
"""
KERNEL = "kernels.Kernels.track_latency"
MODEL = "models.Models.track_latency"
ENGINE = Path("benchmarks/assay/benchmarks/peers/assay_runtime.py")
STEP = '''

class Slower:
    """A model that waits before every call."""

    def __init__(self, model):
        self._model = model

    def run(self, inputs):
        import time

        time.sleep(0.05)
        return self._model.run(inputs)
'''


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository and its commits, oldest first; the third is slower than the second."""

    folder: Path
    commits: tuple[str, ...]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("commits")
    for name in SOURCES:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "runs", "*.html")
        )
    for name in ("asv.conf.json", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "small.toml").write_text(SETTINGS)
    git(folder, "init", "-q", "-b", "main")
    commits = []
    for number in range(4):
        if number == 2:
            engine = folder / ENGINE
            code = engine.read_text()
            loaded = "load(files.artifact, threads=threads)"
            assert f"return {loaded}" in code
            engine.write_text(code.replace(f"return {loaded}", f"return Slower({loaded})") + STEP)
        (folder / "number.txt").write_text(str(number))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", f"commit {number}")
        commits.append(git(folder, "rev-parse", "HEAD"))
    return Repository(folder=folder, commits=tuple(commits))


class Commands:
    """Runs asv in the repository: what it ended with, and what it printed."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._capfd.readouterr()
        code = asv_run.main(arguments)
        shown = self._capfd.readouterr()
        return code, shown.out + shown.err


@pytest.fixture
def asv(
    repository: Repository,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Commands:
    # The builds of the cache stay where they are; asv's description of this machine goes elsewhere.
    from assay.compile.cache import default_cache_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(default_cache_folder().parents[1]))
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("ASSAY_SUITES", "small.toml")
    monkeypatch.chdir(repository.folder)
    return Commands(capfd)


def test_a_slower_commit_is_measured_compared_found_and_published(
    repository: Repository, asv: Commands
) -> None:
    first, before, slower, last = repository.commits
    code, shown = asv("continuous", before, last, "--bench", KERNEL, "--bench", MODEL)
    assert code == 1, shown
    assert "PERFORMANCE DECREASED" in shown
    assert "kernels: 2 measured, 0 skipped, 0 failed" in shown
    assert "models: 2 measured, 0 skipped, 0 failed" in shown

    code, shown = asv("compare", before, last)
    assert code == 0, shown
    (row,) = (line for line in shown.splitlines() if KERNEL in line)
    assert row.startswith("| +")

    code, shown = asv("find", f"{first}..{last}", KERNEL)
    assert code == 0, shown
    assert f"regression found: {slower[:8]}" in shown

    code, shown = asv("publish")
    assert code == 0, shown
    site = repository.folder / "results" / "html"
    index = json.loads((site / "index.json").read_text())
    assert {KERNEL, MODEL} <= set(index["benchmarks"])
    assert index["benchmarks"][KERNEL]["unit"] == "seconds"
    assert (site / "index.html").is_file()


def test_a_commit_that_cannot_be_imported_measures_nothing(repository: Repository, asv: Commands) -> None:
    git(repository.folder, "checkout", "-q", "-b", "broken")
    engine = repository.folder / ENGINE
    engine.write_text("import nothing_of_this_name\n")
    git(repository.folder, "commit", "-q", "-a", "-m", "broken")
    code, shown = asv("run", "HEAD^!", "--bench", KERNEL)
    assert code == 25, shown
    assert "kernels: 0 measured, 0 skipped, 1 failed" in shown
    assert "nothing_of_this_name" in shown
