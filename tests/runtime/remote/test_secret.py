from __future__ import annotations

import stat
from pathlib import Path

import pytest

from assay.errors import StorageError, UsageError
from assay.runtime.remote.secret import Nonces, read_key, write_key


def test_a_new_key_is_random_and_private(tmp_path: Path) -> None:
    for name in ("one.key", "two.key"):
        write_key(tmp_path / name)
    assert stat.S_IMODE((tmp_path / "one.key").stat().st_mode) == 0o600
    one, two = (read_key(tmp_path / name) for name in ("one.key", "two.key"))
    assert one != two
    assert len(bytes.fromhex(one.decode())) == 32


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    write_key(tmp_path / "lab.key")
    before = (tmp_path / "lab.key").read_bytes()
    with pytest.raises(StorageError, match="File exists"):
        write_key(tmp_path / "lab.key")
    assert (tmp_path / "lab.key").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"k" * 64, 0o644, "Other users can reach"),
        (b"k" * 31 + b"\n\n", 0o600, "holds 31 bytes"),
        (b"k" * 5000, 0o600, "holds 4097 bytes"),
        (b"", 0o600, "holds 0 bytes"),
    ],
)
def test_keys_that_keep_nobody_out_are_refused(
    tmp_path: Path, content: bytes, mode: int, message: str
) -> None:
    path = tmp_path / "bad.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(UsageError, match=message):
        read_key(path)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="assay device key"):
        read_key(tmp_path / "none.key")


def test_proofs_differ_by_side_session_and_key() -> None:
    one, two = Nonces(client=b"a" * 32, server=b"b" * 32), Nonces(client=b"a" * 32, server=b"c" * 32)
    keys = one.session_keys(b"k")
    proofs = [one.proof(b"k", "client"), one.proof(b"k", "server"), two.proof(b"k", "client"), keys.client]
    proofs += [keys.server, one.proof(b"other", "client")]
    assert len(set(proofs)) == len(proofs)
