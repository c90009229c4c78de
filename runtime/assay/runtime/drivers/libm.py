"""C's library of mathematical functions, which kernels call."""

from __future__ import annotations

import ctypes

__all__ = ["load_libm"]

_GLIBC = "libm.so.6"


def load_libm(mode: int = ctypes.DEFAULT_MODE) -> ctypes.CDLL:
    """The library, loaded with ``mode`` as ``ctypes.CDLL`` knows it. Raises OSError where there is none."""
    try:
        return ctypes.CDLL(_GLIBC, mode)
    except OSError:
        from ctypes.util import find_library  # it starts other programs, which takes milliseconds

        name = find_library("m")
        if name is None:
            raise
        return ctypes.CDLL(name, mode)
