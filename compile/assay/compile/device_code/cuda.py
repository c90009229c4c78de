"""CUDA: C++ to machine code and PTX with NVRTC, which needs neither a GPU nor a driver."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path
from typing import Any

from assay.compile.device_code.cuda_matrix import with_matrix_functions
from assay.compile.device_code.emitted import EmittedCode
from assay.compile.device_code.source import generated_module, kernel_names
from assay.compile.targets.gpu_target import GpuTarget
from assay.errors import AssayError, MissingDependencyError
from assay.runtime.device_code import CodeFormat, DeviceCode, KernelResources

__all__ = ["compile_cuda", "emit", "resources"]

_MAXIMUM_LOG = 1500
# TVM's preamble includes two headers of libcu++ for names of integer types and traits. These definitions
# stand in their place: libcu++ is 24 MB of headers, and takes four fifths of the time of a compilation.
_HEADERS = {
    "cuda/std/cstdint": """
namespace cuda { namespace std {
using int8_t = signed char; using int16_t = short; using int32_t = int; using int64_t = long long;
using uint8_t = unsigned char; using uint16_t = unsigned short; using uint32_t = unsigned int;
using uint64_t = unsigned long long;
}}
""",
    "cuda/std/type_traits": """
namespace cuda { namespace std {
template <class A, class B> struct is_same { static constexpr bool value = false; };
template <class A> struct is_same<A, A> { static constexpr bool value = true; };
template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;
template <class T> struct is_integral;
template <class T> struct is_signed;
template <class T> struct is_unsigned;
template <class T> struct is_floating_point;
template <bool V, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { using type = T; };
template <bool V, class T, class F> struct conditional { using type = T; };
template <class T, class F> struct conditional<false, T, F> { using type = F; };
}}
""",
}
# What ptxas says of one kernel under -v.
_FUNCTION = re.compile(
    r"Compiling entry function '(?P<name>[^']+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, \d+ bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<line>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")
_LAUNCH_BOUNDS = re.compile(r"__launch_bounds__\((\d+)[^)]*\)\s+(\w+)\(")


def emit(functions: Any, tvm_target: Any, target: GpuTarget) -> EmittedCode:
    """CUDA C++, the machine code (cubin) for the target's architecture, and PTX for later ones."""
    source = with_matrix_functions(generated_module(functions, tvm_target).inspect_source(""))
    if target.stands_for is not None:
        return _source_alone(source, functions, target)
    assert target.architecture is not None
    cubin, ptx, log, version = compile_cuda(source, target.architecture)
    found = resources(source, cubin, log, target.warp_size)
    missing = set(kernel_names(functions)) - set(found)
    if missing:
        raise AssayError(f"The machine code lacks kernels: {', '.join(sorted(missing))}.")
    return EmittedCode(
        files={"kernels.cubin": cubin, "kernels.ptx": ptx, "kernels.cu": source.encode()},
        description=DeviceCode(
            api=target.api,
            architecture=target.architecture,
            compiler=f"NVRTC {version}",
            files={
                CodeFormat.CUBIN: "kernels.cubin",
                CodeFormat.PTX: "kernels.ptx",
                CodeFormat.CUDA_C: "kernels.cu",
            },
            kernels=dict(sorted(found.items())),
            checks=(f"compiled to machine code for {target.architecture}",),
        ),
    )


def _source_alone(source: str, functions: Any, target: GpuTarget) -> EmittedCode:
    """The source of kernels that only the CPU runs, in the place of those of another API."""
    kernel = KernelResources(shared_bytes=0, wave_size=target.warp_size)
    return EmittedCode(
        files={"kernels.cu": source.encode()},
        description=DeviceCode(
            api=target.api,
            architecture=target.architecture,
            compiler="none: run on the CPU",
            files={CodeFormat.CUDA_C: "kernels.cu"},
            kernels=dict.fromkeys(kernel_names(functions), kernel),
        ),
    )


def compile_cuda(source: str, architecture: str) -> tuple[bytes, bytes, str, str]:
    """Machine code and PTX of CUDA C++ for ``sm_NN``, ptxas's words about it, and the compiler's version.

    Raises AssayError with the compiler's message, shortened, where it refuses the source, and
    MissingDependencyError where NVRTC is not installed.
    """
    nvrtc = _nvrtc()
    code, program = nvrtc.nvrtcCreateProgram(
        source.encode(),
        b"kernels.cu",
        len(_HEADERS),
        [text.encode() for text in _HEADERS.values()],
        [name.encode() for name in _HEADERS],
    )
    _expect(nvrtc, code)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v", "-w"]
    options += [f"--include-path={folder}" for folder in _include_folders()]
    (code,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = _text(nvrtc, program, "ProgramLog").decode(errors="replace").strip("\0\n ")
    if int(code):
        raise AssayError(f"NVRTC refuses the kernels for {architecture}: {log[:_MAXIMUM_LOG] or code}")
    cubin, ptx = _text(nvrtc, program, "CUBIN"), _text(nvrtc, program, "PTX")
    nvrtc.nvrtcDestroyProgram(program)
    code, major, minor = nvrtc.nvrtcVersion()
    return cubin, ptx.rstrip(b"\0"), log, f"{major}.{minor}"


def resources(source: str, cubin: bytes, log: str, wave_size: int) -> dict[str, KernelResources]:
    """What each kernel of the machine code takes, in ptxas's words."""
    from elftools.elf.elffile import ELFFile

    bounds = {name: int(threads) for threads, name in _LAUNCH_BOUNDS.findall(source)}
    said = {match["name"]: match for match in _FUNCTION.finditer(log)}
    sections = [section.name for section in ELFFile(io.BytesIO(cubin)).iter_sections()]
    found = {}
    for kernel in (name.removeprefix(".text.") for name in sections if name.startswith(".text.")):
        words = said.get(kernel)
        if words is None:
            raise AssayError(f"NVRTC does not say what the kernel {kernel} takes.")
        shared = _SHARED.search(words["line"])
        found[kernel] = KernelResources(
            registers=int(words["registers"]),
            shared_bytes=int(shared[1]) if shared else 0,
            stack_bytes=int(words["stack"]),
            spills=int(words["stores"]),
            maximum_threads=bounds.get(kernel),
            wave_size=wave_size,
        )
    return found


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except ImportError as error:
        raise MissingDependencyError("cuda-bindings", "cuda") from error
    except (RuntimeError, OSError) as error:  # the package that finds NVIDIA's libraries raises both
        raise MissingDependencyError("nvidia-cuda-nvrtc", "cuda") from error
    return nvrtc


def _include_folders() -> list[Path]:
    """Where cuda_fp16.h is: the headers of nvidia-cuda-runtime."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in spec.submodule_search_locations or ()] if spec else []
    return [folder for root in roots for folder in sorted(root.glob("cu*/include")) if folder.is_dir()]


def _text(nvrtc: Any, program: Any, what: str) -> bytes:
    code, size = getattr(nvrtc, f"nvrtcGet{what}Size")(program)
    _expect(nvrtc, code)
    buffer = b" " * int(size)
    (code,) = getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    _expect(nvrtc, code)
    return buffer


def _expect(nvrtc: Any, code: Any) -> None:
    if int(code):
        raise AssayError(f"NVRTC failed: {nvrtc.nvrtcGetErrorString(code)[-1].decode()}.")
