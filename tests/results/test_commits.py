from __future__ import annotations

import subprocess
from datetime import UTC, datetime

import pytest

from assay.errors import UsageError
from assay.results.commits import read_commits


def test_commits_come_oldest_first(synthetic_history):
    commits = read_commits(synthetic_history.repository)
    assert tuple(commit.hash for commit in commits) == synthetic_history.commits
    assert commits[0].subject == "Change the kernels, 1 of 30"
    assert commits[0].time.date() == datetime(2026, 1, 5, tzinfo=UTC).date()
    assert len(read_commits(synthetic_history.repository, "main~3")) == 27


@pytest.mark.parametrize("ref", ["no-such-ref", "--all", "", "kernels.txt"])
def test_a_ref_that_is_none(synthetic_history, ref):
    with pytest.raises(UsageError):
        read_commits(synthetic_history.repository, ref)


def test_no_repository_and_no_commit(tmp_path):
    with pytest.raises(UsageError, match="not a git repository"):
        read_commits(tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_commits(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_commits(tmp_path / "none")
