"""Files of WGSL: kernels one after the other, each a module of its own behind a line with its name."""

from __future__ import annotations

import re

__all__ = ["SPREAD", "split_wgsl"]

SPREAD = "blockIdx.z * gridDim.x + blockIdx.x"
"""How a kernel that uses x and y alone finds its group when x, of up to 65535 groups, goes on in z."""

_HEADING = re.compile(r"^// Function: (\w+)\s*$", re.MULTILINE)


def split_wgsl(source: str) -> dict[str, str]:
    """The kernels of a file by name."""
    pieces = _HEADING.split(source)
    kernels: dict[str, str] = {}
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        kernels[name] = kernels.get(name, "") + text
    return kernels
