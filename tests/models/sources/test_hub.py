from __future__ import annotations

from pathlib import Path

import pytest

from assay.errors import ModelError
from assay.models.sources.hf_folder import open_folder
from assay.models.sources.hub import hub_directory, hub_snapshot, is_hub_name

from .test_hf_folder import TENSORS, write_single

REVISION = "0123456789abcdef0123456789abcdef01234567"


def make_hub(hub: Path, name: str = "org/name", revision: str = REVISION) -> Path:
    """A model as huggingface_hub keeps it: blobs, links to them in a snapshot, and refs/main."""
    model = hub / f"models--{name.replace('/', '--')}"
    blobs = write_single(model / "blobs")
    snapshot = model / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(blobs.iterdir())):
        blob = file.rename(blobs / f"{number:064x}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(revision)
    return snapshot


def test_a_model_is_found_by_its_name(tmp_path: Path) -> None:
    snapshot = make_hub(tmp_path)
    assert hub_snapshot("org/name", tmp_path) == snapshot
    assert sorted(open_folder(snapshot).weights().names()) == sorted(TENSORS)


def test_refs_main_chooses_among_snapshots(tmp_path: Path) -> None:
    snapshot = make_hub(tmp_path)
    (snapshot.parent / "older").mkdir()
    assert hub_snapshot("org/name", tmp_path) == snapshot
    (tmp_path / "models--org--name" / "refs" / "main").unlink()
    with pytest.raises(ModelError, match="has 2 snapshots and no refs/main"):
        hub_snapshot("org/name", tmp_path)
    (snapshot.parent / "older").rmdir()
    assert hub_snapshot("org/name", tmp_path) == snapshot


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    make_hub(tmp_path)
    assert hub_snapshot("org/other", tmp_path) is None
    assert hub_snapshot("org/name", tmp_path / "missing") is None


@pytest.mark.parametrize(
    "revision", ["missing", "", "../../../outside", "/etc", "a/b", "..", "\x00", "x" * 300, "\udcff"]
)
def test_a_damaged_reference_is_refused(tmp_path: Path, revision: str) -> None:
    make_hub(tmp_path)
    (tmp_path / "outside").mkdir()
    reference = tmp_path / "models--org--name" / "refs" / "main"
    reference.write_bytes(revision.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match="The hub directory"):
        hub_snapshot("org/name", tmp_path)


def test_a_model_without_snapshots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models--org--name").mkdir()
    with pytest.raises(ModelError, match="has 0 snapshots"):
        hub_snapshot("org/name", tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/name", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("a/b.c_d-1", True),
        ("name", False),
        ("a/b/c", False),
        ("../b", False),
        ("a/..", False),
        ("a/b..c", False),
        ("/a", False),
        ("a/", False),
        ("a b/c", False),
        ("a/b\n", False),
    ],
)
def test_names_of_the_hub_have_a_form(name: str, expected: bool) -> None:
    assert is_hub_name(name) is expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_HUB_CACHE": "/x/cache", "HF_HOME": "/y"}, "/x/cache"),
        ({"HF_HOME": "/y"}, "/y/hub"),
        ({"XDG_CACHE_HOME": "/z"}, "/z/huggingface/hub"),
    ],
)
def test_the_hub_lies_where_the_environment_says(environment: dict[str, str], expected: str) -> None:
    assert hub_directory(environment) == Path(expected)


def test_without_an_environment_it_lies_in_the_home() -> None:
    assert hub_directory({}) == Path.home() / ".cache" / "huggingface" / "hub"
