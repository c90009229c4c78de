"""Keys that devices and hosts share, and the proofs that each knows the key without telling it.

Both sides send a random number of 32 bytes; each proves that it knows the key by HMAC-SHA256 (RFC 2104) of
both numbers under a label of its own, so that no proof can be sent back or used again. From the same numbers
come the keys of the session, one for each direction, under which every frame carries its HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from assay.errors import StorageError, UsageError

__all__ = ["NONCE_BYTES", "NO_KEY", "PROOF_BYTES", "Nonces", "SessionKeys", "read_key", "write_key"]

NONCE_BYTES = 32
PROOF_BYTES = 32
NO_KEY = b""
_LEAST_KEY_BYTES = 32
_MOST_KEY_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class SessionKeys:
    """The keys of one session, by the side that sends under them."""

    client: bytes
    server: bytes


@dataclass(frozen=True, kw_only=True)
class Nonces:
    """The random numbers of one session."""

    client: bytes
    server: bytes

    def proof(self, key: bytes, side: str) -> bytes:
        """What shows that ``side`` (``client`` or ``server``) knows ``key``."""
        return self._derived(key, f"assay device 1: proof of the {side}")

    def session_keys(self, key: bytes) -> SessionKeys:
        """The keys under which frames are sent."""
        return SessionKeys(
            client=self._derived(key, "assay device 1: frames of the client"),
            server=self._derived(key, "assay device 1: frames of the server"),
        )

    def _derived(self, key: bytes, label: str) -> bytes:
        return hmac.new(key, label.encode() + b"\0" + self.client + self.server, hashlib.sha256).digest()


def read_key(path: Path) -> bytes:
    """The key in the file at ``path``, without the white space around it.

    Raises UsageError for a file that is missing, shorter than 32 bytes, or that others can read.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            key = stream.read(_MOST_KEY_BYTES + 1).strip()
    except OSError as error:
        raise UsageError(
            f"The key file {path} cannot be read: {error.strerror or error}.",
            hint=f"assay device key {path} makes one.",
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"Other users can reach the key file {path}, so it keeps nobody out.", hint=f"chmod 600 {path}"
        )
    if not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise UsageError(
            f"The key file {path} holds {len(key)} bytes; a key has {_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES}.",
            hint=f"assay device key {path} makes one.",
        )
    return key


def write_key(path: Path) -> None:
    """Make a new random key of 256 bits, in hexadecimal, in a file that only its owner can read.

    Raises StorageError where something is at ``path`` already, or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StorageError(
            f"The key cannot be written to {path}: {error.strerror or error}.",
            hint="A key that is there is never overwritten; choose another path.",
        ) from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(32) + "\n")
