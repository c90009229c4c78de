from __future__ import annotations

import os
from pathlib import Path

import pytest

from assay.ci.gate.repository import WORKTREE, find_repository
from assay.errors import GateInfrastructureError, UsageError


def test_refs_are_resolved_to_commits(git):
    first, second = git.commit(a="1"), git.commit(a="2")
    git("tag", "v1", first)
    repository = find_repository(git.root)
    assert repository.resolve("HEAD").commit == second
    assert repository.resolve("v1").commit == repository.resolve("HEAD~1").commit == first
    assert str(repository.resolve("v1")) == f"v1 ({first[:10]})"
    assert str(repository.resolve(first[:12])) == first[:10]


def test_a_ref_that_is_not_there_suggests_the_nearest(git):
    git.commit(a="1")
    git("branch", "feature-one")
    repository = find_repository(git.root)
    with pytest.raises(UsageError, match="no commit 'featur-one'") as raised:
        repository.resolve("featur-one")
    assert raised.value.hint == "Did you mean feature-one?"
    with pytest.raises(UsageError) as raised:
        repository.resolve("xyzzy")
    assert "git fetch origin xyzzy" in str(raised.value.hint)


@pytest.mark.parametrize("ref", ["", "--all", "-q", "HEAD:a", "a..b", "HEAD^{tree}"])
def test_what_is_no_commit_is_none(git, ref):
    git.commit(a="1")
    with pytest.raises(UsageError):
        find_repository(git.root).resolve(ref)


def test_a_shallow_clone_says_so(git, tmp_path):
    git.commit(a="1")
    git.commit(a="2")
    git("clone", "--quiet", "--depth=1", f"file://{git.root}", str(tmp_path / "clone"))
    with pytest.raises(UsageError) as raised:
        find_repository(tmp_path / "clone").resolve("HEAD~1")
    assert "shallow" in str(raised.value.hint)


def test_a_dirty_tree_is_the_default_head_and_a_clean_one_is_not(git):
    git.commit(a="1")
    repository = find_repository(git.root)
    head = repository.default_head()
    assert (head.ref, head.worktree, head.dirty) == ("HEAD", False, False)
    (git.root / "a").write_text("2")
    head = repository.default_head()
    assert (head.ref, head.worktree, head.dirty) == (WORKTREE, True, True)
    assert repository.changes() == ("a",)
    assert repository.read(head, "a") == b"2"
    assert repository.read(repository.resolve("HEAD"), "a") == b"1"
    assert repository.read(head, "b") is None
    assert repository.read(repository.resolve("HEAD"), "b") is None


def test_the_tree_of_a_commit_comes_and_goes(git, tmp_path):
    commit = git.commit(a="1")
    git.commit(a="2")
    repository = find_repository(git.root)
    with repository.tree(repository.resolve(commit), tmp_path / "tree") as tree:
        assert (tree / "a").read_text() == "1"
    assert not tree.exists()
    assert len(git("worktree", "list").splitlines()) == 1


def test_a_hook_does_not_run(git, tmp_path):
    git.commit(a="1")
    hook = git.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    hook.chmod(0o755)
    repository = find_repository(git.root)
    with repository.tree(repository.resolve("HEAD"), tmp_path / "tree"):
        pass
    assert not (tmp_path / "ran").exists()


def test_the_working_tree_is_copied_with_what_git_does_not_ignore(git, tmp_path):
    git.commit(a="1", b="1", __gitignore="ignored\n")
    (git.root / "a").write_text("2")
    (git.root / "b").unlink()
    (git.root / "new").write_text("3")
    (git.root / "ignored").write_text("4")
    (git.root / "link").symlink_to("nowhere")
    repository = find_repository(git.root)
    with repository.tree(repository.resolve(WORKTREE), tmp_path / "tree") as tree:
        assert {path.name for path in tree.iterdir()} == {"a", "new", "link", ".gitignore"}
        assert (tree / "a").read_text() == "2"
        (git.root / "a").write_text("5")
        assert (tree / "a").read_text() == "2"
        assert os.readlink(tree / "link") == "nowhere"  # noqa: PTH115 -- as it is
    assert not tree.exists()


def test_a_folder_without_a_repository(tmp_path):
    with pytest.raises(UsageError, match="in no git repository"):
        find_repository(tmp_path)


def test_a_repository_without_a_commit(git):
    with pytest.raises(UsageError, match="no commit yet"):
        find_repository(git.root)


def test_git_that_is_not_installed(git, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GateInfrastructureError, match="git cannot be started"):
        find_repository(git.root)


def test_a_tree_that_cannot_be_written(git, tmp_path):
    git.commit(a="1")
    repository = find_repository(git.root)
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(GateInfrastructureError, match="git worktree failed"),
        repository.tree(repository.resolve("HEAD"), Path(tmp_path / "file" / "tree")),
    ):
        pass
