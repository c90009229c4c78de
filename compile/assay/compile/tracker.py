"""TVM's RPC tracker, in this process: its own server (``tvm/rpc/tracker.py``) on a socket of ours."""

from __future__ import annotations

import asyncio
import secrets
import socket

from assay.compile.tvm_import import import_tvm
from assay.errors import MissingDependencyError

__all__ = ["serve_tracker"]


def serve_tracker(listener: socket.socket) -> None:
    """Serve hosts and devices on ``listener`` until an exception, such as an interrupt, ends it.

    Raises MissingDependencyError where the extra ``tracker`` is not installed.
    """
    import_tvm()
    try:
        from tvm.rpc.tracker import TrackerServerHandler
    except ImportError as error:
        raise MissingDependencyError("tornado", "tracker") from error
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # The key by which a client could stop it is told to nobody.
    TrackerServerHandler(listener, secrets.token_hex(16)).run()
