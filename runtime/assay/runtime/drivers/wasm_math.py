"""What kernels in WebAssembly call of C's mathematics, element by element: it has no such instructions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from assay.runtime.drivers.libm import load_libm

__all__ = ["MATH"]

_ONE = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "exp", "exp2", "expm1", "log",
    "log10", "log1p", "log2", "round", "sin", "sinh", "tan", "tanh",
)  # fmt: skip
_TWO = ("atan2", "fmax", "fmin", "fmod", "hypot", "pow")


def _functions() -> dict[str, Callable[..., Any]]:
    library: Any = load_libm()
    found = {}
    for suffix, kind in (("", ctypes.c_double), ("f", ctypes.c_float)):
        for names, count in ((_ONE, 1), (_TWO, 2)):
            for name in names:
                function = getattr(library, name + suffix)
                function.argtypes, function.restype = [kind] * count, kind
                found[name + suffix] = function
    return found


MATH: dict[str, Callable[..., Any]] = _functions()
"""The functions by the names that C has for them."""
