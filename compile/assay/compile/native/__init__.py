"""The runtime for devices without Python: C++ that follows launch plans, and what compiles it.

The sources lie beside this file. ``assay.h`` is the interface, ``run.cc`` the program ``assay-run``. They use
libc and nothing else, so that one small program runs on every Linux of its machine.
"""

from __future__ import annotations

from assay.compile.native.platforms import Platform, find_platform, for_platform, platform_of, platforms
from assay.compile.native.toolchain import build_library, build_program

__all__ = [
    "Platform",
    "build_library",
    "build_program",
    "find_platform",
    "for_platform",
    "platform_of",
    "platforms",
]
