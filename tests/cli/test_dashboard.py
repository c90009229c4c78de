from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from assay.cli.commands.dashboard import _origin
from assay.cli.dashboard_builds import artifact_builds, cached_builds, with_rooflines
from assay.errors import ArtifactError, RecordError
from assay.results.dashboard.model import Build, Roofline
from assay.results.synthetic import Benchmark, Noise, make_history

STEP = Benchmark(model="tiny", value=0.01, noise=Noise.NORMAL, spread=0.001, steps=((6, 1.2),))
PEER = Benchmark(model="tiny", value=0.02, noise=Noise.NORMAL, spread=0.001, engine="onnxruntime")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ASSAY_RESULTS", raising=False)


@pytest.fixture
def runs(tmp_path) -> Path:
    return make_history(tmp_path / "repository", commits=12, benchmarks=(STEP, PEER)).results


def index_of(site: Path) -> dict[str, object]:
    text = (site / "data/index.js").read_text()
    return dict(json.loads(text.removeprefix("Assay.receive(...").removesuffix(");\n"))[1])


def test_records_become_a_site(cli, runs, tmp_path):
    written = cli.json("dashboard", "--results", runs, "-o", tmp_path / "site", "--title", "Ours <now>")
    assert written["path"] == str(tmp_path / "site")
    assert (written["rows"], written["configurations"]) == (1, 1)
    (row,) = index_of(tmp_path / "site")["rows"]
    assert row["model"] == "tiny"
    assert row["peers"]["onnxruntime"][0] == pytest.approx(20 / 12, rel=0.02)
    assert row["change"]["ratio"] == pytest.approx(1.2, rel=0.02)
    assert "Ours &lt;now&gt;" in (tmp_path / "site/index.html").read_text()


def test_damaged_records_are_told_and_the_others_shown(cli, runs, tmp_path):
    (runs / "cut.json").write_text("{")
    result = cli("dashboard", "--results", runs, "-o", tmp_path / "site")
    assert "left out:" in result.stderr
    assert "cut.json" in result.stderr
    index = index_of(tmp_path / "site")
    assert len(index["rows"]) == 1
    assert any("cut.json" in note for note in index["notes"])


def test_before_anything_was_measured_there_is_a_site_that_says_so(cli, monkeypatch, tmp_path):
    monkeypatch.setattr("assay.benchmarks.provenance.find_checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    result = cli("dashboard")
    assert "no records" in result.stderr
    assert index_of(tmp_path / "results/site")["rows"] == []


def test_wrong_places_are_one_error(cli, runs, tmp_path):
    assert "no folder of results" in cli.error("dashboard", "--results", tmp_path / "none", code=2)["message"]
    wrong = cli.error("dashboard", "--results", runs, "--repository", "javascript:1", code=2)
    assert "not the address of a repository" in wrong["message"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("")
    taken = cli.error("dashboard", "--results", runs, "-o", tmp_path / "mine", code=2)
    assert "not of a dashboard" in taken["message"]


def test_pages_of_asv_are_copied_or_left_out_with_one_warning(cli, runs, tmp_path):
    pages = tmp_path / "html"
    pages.mkdir()
    options = ("--results", runs, "-o", tmp_path / "site", "--asv", pages)
    (pages / "index.html").write_text("<title>asv</title>")
    cli("dashboard", *options)
    assert "<title>asv</title>" in (tmp_path / "site/asv/index.html").read_text()
    assert 'href="asv/index.html"' in (tmp_path / "site/index.html").read_text()
    (pages / "index.html").write_text('<script src="https://elsewhere.example/new.js"></script>')
    result = cli("dashboard", *options)
    assert result.stderr.count("warning:") == 1
    assert "index.html loads https://elsewhere.example/new.js from elsewhere" in result.stderr
    assert not (tmp_path / "site/asv").exists()
    assert "asv/index.html" not in (tmp_path / "site/index.html").read_text()


def test_artifacts_add_levels_that_never_ran(cli, runs, tmp_path, make_artifact, never_executed):
    artifact = make_artifact(levels=(never_executed,))
    cli("dashboard", "--results", runs, "-o", tmp_path / "site", "--artifacts", artifact)
    rows = {row["model"]: row for row in index_of(tmp_path / "site")["rows"]}
    assert rows["pair"]["executed"] == "never"
    assert "value" not in rows["pair"]


def test_artifacts_are_read_from_folders_of_them(make_artifact, manifest, tmp_path):
    path = make_artifact()
    (build,) = artifact_builds([path])
    assert artifact_builds([path.parent]) == [build]
    cases = manifest.levels[0].verification.cases
    assert build.quality.cosine == min(case.cosine_similarity for case in cases)
    assert build.quality.absolute_error == max(case.max_absolute_error for case in cases)
    assert build.size == sum(
        file.stat().st_size
        for file in path.rglob("*")
        if file.is_file() and not file.name.startswith("manifest.")
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no artifact below"):
        artifact_builds([tmp_path / "empty"])


def test_of_the_cache_those_of_the_records_are_taken(make_artifact, tmp_path):
    path = make_artifact("cache/one")
    make_artifact("cache/two", scheme="int8")
    digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    (tmp_path / "cache/damaged").mkdir()
    (tmp_path / "cache/damaged/manifest.sha256").write_text(digest)
    assert [build.scheme for build in cached_builds(tmp_path / "cache", {f"sha256:{digest}"})] == ["f32"]


def kernel(seconds, roof, bound):
    return {"kernel": "k", "seconds": seconds, "roof_seconds": roof, "bound": bound}


def test_kernel_profiles_give_rooflines(tmp_path):
    profile = {
        "model": "tiny",
        "target": "x86-64-v3",
        "scheme": "f32",
        "profile": "release",
        "threads": 2,
        "kernels": [kernel(3.0, 1.5, "memory"), kernel(5.0, 4.5, "compute"), kernel(9.0, None, None)],
    }
    (tmp_path / "tiny.json").write_text(json.dumps(profile))
    build = Build(model="tiny", weights="random", target="x86-64-v3", scheme="f32", profile="release")
    other = msgspec.structs.replace(build, scheme="int8")
    (found, same) = with_rooflines([build, other], [tmp_path])
    assert found.rooflines == {2: Roofline(fraction=0.75, bound="compute")}
    assert (found.weights, same) == ("random", other)


def test_a_file_that_is_no_kernel_profile_is_one_error(tmp_path):
    (tmp_path / "a.json").write_text('{"model": "tiny"}')
    with pytest.raises(RecordError, match="no kernel profile"):
        with_rooflines([], [tmp_path / "a.json"])


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://example.org/us/assay.git", "https://example.org/us/assay"),
        ("https://name:secret@example.org/us/assay", "https://example.org/us/assay"),
        ("git@example.org:us/assay.git", "https://example.org/us/assay"),
        ("ssh://git@example.org/us/assay", "https://example.org/us/assay"),
        ("/srv/assay.git", None),
        ("", None),
    ],
)
def test_the_remote_becomes_an_address_without_secrets(monkeypatch, remote, expected):
    monkeypatch.setattr("assay.cli.commands.dashboard._git", lambda *_: f"{remote}\n")
    assert _origin(Path()) == expected
