"""Metal: the source of all kernels in one file, and what can be known of it without Apple's compiler."""

from __future__ import annotations

import re
from typing import Any

from assay.compile.device_code.emitted import EmittedCode
from assay.compile.device_code.source import generated_module, kernel_names
from assay.compile.targets.gpu_target import GpuTarget
from assay.errors import AssayError
from assay.runtime.device_code import CodeFormat, DeviceCode, KernelResources

__all__ = ["check_source", "emit", "one_source"]

_BUFFERS = 31  # Metal Feature Set Tables: entries of the buffer argument table
_BYTES = {
    **dict.fromkeys(("bool", "char", "uchar"), 1),
    **dict.fromkeys(("short", "ushort", "half", "bfloat"), 2),
    **dict.fromkeys(("int", "uint", "float"), 4),
    **dict.fromkeys(("long", "ulong"), 8),
}
_COMMON = """#include <metal_stdlib>
using namespace metal;

union __TVMArgUnion {
 int v_int[2];
};"""
_FUNCTION = re.compile(r"^// Function: \w+\n", re.MULTILINE)
_PREAMBLE = re.compile(r"#include <metal_stdlib>\n|using namespace metal;\n|union __TVMArgUnion \{[^}]*\};\n")
_KERNEL = re.compile(r"^kernel void (\w+)\(", re.MULTILINE)
_BUFFER = re.compile(r"\[\[\s*buffer\((\d+)\)\s*\]\]")
_ARRAY = re.compile(r"^(\s*)(threadgroup \w+ \w+\[\d+\];)", re.MULTILINE)
_SHARED = re.compile(r"^\s*(?:alignas\(\d+\) )?threadgroup (\w+?)([234]?) \w+\[(\d+)\]", re.MULTILINE)


def emit(functions: Any, tvm_target: Any, target: GpuTarget) -> EmittedCode:
    """Metal Shading Language. Nothing here compiles it: Apple's compiler runs on macOS only."""
    source = one_source(generated_module(functions, tvm_target).inspect_source(""))
    found = check_source(source, target)
    missing = set(kernel_names(functions)) - set(found)
    if missing:
        raise AssayError(f"The source lacks kernels: {', '.join(sorted(missing))}.")
    return EmittedCode(
        files={"kernels.metal": source.encode()},
        description=DeviceCode(
            api=target.api,
            architecture=target.architecture,
            compiler="none: compiled when it is loaded",
            files={CodeFormat.MSL: "kernels.metal"},
            kernels=dict(sorted(found.items())),
            checks=("buffers, threadgroup memory and types are within the limits of Apple7",),
        ),
    )


def one_source(text: str) -> str:
    """TVM's sources of several kernels as one: what all of them begin with, once.

    Threadgroup memory is aligned for vectors, by which kernels read it.
    """
    parts = [_PREAMBLE.sub("", part).strip() for part in _FUNCTION.split(text)]
    parts = [_ARRAY.sub(r"\1alignas(16) \2", part) for part in parts]
    return "\n\n".join((_COMMON, *(part for part in parts if part), ""))


def check_source(source: str, target: GpuTarget) -> dict[str, KernelResources]:
    """Threadgroup memory of each kernel. Raises AssayError for what no device of the family takes."""
    starts = [(match[1], match.start()) for match in _KERNEL.finditer(source)]
    ends = [start for _, start in starts[1:]] + [len(source)]
    found = {}
    for (name, start), end in zip(starts, ends, strict=True):
        text = source[start:end]
        if re.search(r"\bdouble\b", text):
            raise AssayError(f"The kernel {name} computes in float64, which Metal does not have.")
        buffers = len(_BUFFER.findall(text))
        if buffers > _BUFFERS:
            raise AssayError(f"The kernel {name} takes {buffers} buffers; Metal binds {_BUFFERS} at most.")
        shared = sum(
            _BYTES[kind] * (4 if lanes == "3" else int(lanes or 1)) * int(count)
            for kind, lanes, count in _SHARED.findall(text)
        )
        if shared > target.shared_memory_bytes:
            raise AssayError(
                f"The kernel {name} takes {shared} bytes of threadgroup memory; {target.name} has "
                f"{target.shared_memory_bytes}."
            )
        found[name] = KernelResources(shared_bytes=shared, wave_size=target.warp_size)
    return found
