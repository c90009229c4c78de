"""Linux's permission to use AMX tiles, which a process must ask for before its first tile instruction.

See the kernel's Documentation/arch/x86/xstate.rst.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection

from assay.errors import CpuFeatureError

__all__ = ["request_tiles", "request_tiles_for"]

_ARCH_PRCTL = 158  # number of the system call on x86-64
_REQUEST_PERMISSION = 0x1023  # ARCH_REQ_XCOMP_PERM
_TILE_DATA = 18  # XFEATURE_XTILEDATA


def request_tiles_for(features: Collection[str]) -> None:
    """Ask for the permission where code with these CPU features is about to be loaded and needs it."""
    if "amx_tile" in features:
        request_tiles()


def request_tiles() -> None:
    """Ask for the permission, for all threads of this process. Raises CpuFeatureError where it is refused."""
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    system_call.restype = ctypes.c_long
    if system_call(ctypes.c_long(_ARCH_PRCTL), ctypes.c_long(_REQUEST_PERMISSION), ctypes.c_long(_TILE_DATA)):
        reason = os.strerror(ctypes.get_errno())
        raise CpuFeatureError(
            f"Linux does not let this process use AMX tiles: {reason}.",
            hint="Take another level: --level, or the environment variable ASSAY_LEVEL.",
        )
