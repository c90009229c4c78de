"""ROCm: AMD code objects from LLVM, linked with LLD; what they take is read from their metadata.

Format: "User Guide for AMDGPU Backend", https://llvm.org/docs/AMDGPUUsage.html, Code Object.
"""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from assay.compile.device_code.emitted import EmittedCode
from assay.compile.device_code.source import generated_module, kernel_names
from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.tvm_import import import_tvm
from assay.errors import AssayError, MissingDependencyError
from assay.runtime.device_code import CodeFormat, DeviceCode, KernelResources

__all__ = ["emit", "link_code_object", "metadata", "resources", "with_target_id"]

_METADATA_NOTE = 32  # NT_AMDGPU_METADATA
_NOTE_HEADER = struct.Struct("<III")  # bytes of the name, bytes of the description, type
# Fields of ELF64 headers, all of 64 bits.
_WORD = struct.Struct("<Q")
_SEGMENT_FILE_BYTES, _SEGMENT_MEMORY_BYTES, _SECTION_BYTES = 32, 40, 32
_linked: list[bytes] = []


def emit(functions: Any, tvm_target: Any, target: GpuTarget) -> EmittedCode:
    """One code object with all kernels, and its assembly. Raises AssayError where they do not fit."""
    _register_callbacks()
    _linked.clear()
    module = generated_module(functions, tvm_target)
    (linked,) = _linked
    code = with_target_id(linked, f"amdgcn-amd-amdhsa--{target.architecture}")
    found = resources(code)
    missing = set(kernel_names(functions)) - set(found)
    if missing:
        raise AssayError(f"The code object lacks kernels: {', '.join(sorted(missing))}.")
    waves = {item.wave_size for item in found.values()}
    if waves - {target.warp_size}:
        raise AssayError(f"Kernels for {target.name} have waves of {waves} threads, not {target.warp_size}.")
    llvm = import_tvm().get_global_func("target.llvm_version_major")()
    return EmittedCode(
        files={"kernels.co": code, "kernels.s": module.inspect_source("asm").encode()},
        description=DeviceCode(
            api=target.api,
            architecture=target.architecture,
            compiler=f"LLVM {llvm}",
            files={CodeFormat.CODE_OBJECT: "kernels.co", CodeFormat.LLVM_ASSEMBLY: "kernels.s"},
            kernels=dict(sorted(found.items())),
            checks=(f"compiled to machine code for {target.architecture}",),
        ),
    )


@cache
def _register_callbacks() -> None:
    """Have TVM link with our linker, and take no device library of an installed ROCm."""
    import tvm_ffi

    def link(data: Any) -> bytearray:
        linked = link_code_object(bytes(data))
        _linked.append(linked)
        return bytearray(linked)

    def bitcode() -> Any:
        return import_tvm().runtime.convert([])

    tvm_ffi.register_global_func("tvm_callback_rocm_link", link, override=True)
    tvm_ffi.register_global_func("tvm_callback_rocm_bitcode_path", bitcode, override=True)


def link_code_object(data: bytes) -> bytes:
    """A code object from a relocatable one. Raises AssayError with the linker's message, shortened."""
    with tempfile.TemporaryDirectory() as folder:
        source, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.co"
        source.write_bytes(data)
        command = [sys.executable, "-m", "ziglang", "ld.lld", "-shared", "--build-id=none"]
        result = subprocess.run(
            [*command, "-o", str(linked), str(source)], capture_output=True, text=True, check=False
        )
        if "No module named ziglang" in result.stderr:
            raise MissingDependencyError("ziglang", "compile")
        if result.returncode or not linked.is_file():
            raise AssayError(f"The linker failed on a code object: {result.stderr.strip()[-400:]}")
        return linked.read_bytes()


def metadata(code: bytes) -> dict[str, Any]:
    """The metadata of a code object. Raises AssayError where it has none."""
    import msgpack

    _, offset, size = _note(code)
    found = msgpack.unpackb(code[offset : offset + size])
    assert isinstance(found, dict)
    return found


def resources(code: bytes) -> dict[str, KernelResources]:
    """What each kernel of a code object takes."""
    return {
        item[".name"]: KernelResources(
            registers=item[".vgpr_count"],
            scalar_registers=item[".sgpr_count"],
            accumulator_registers=item.get(".agpr_count"),
            shared_bytes=item[".group_segment_fixed_size"],
            stack_bytes=item[".private_segment_fixed_size"],
            spills=item[".vgpr_spill_count"] + item[".sgpr_spill_count"],
            maximum_threads=item[".max_flat_workgroup_size"],
            wave_size=item[".wavefront_size"],
        )
        for item in metadata(code)["amdhsa.kernels"]
    }


def with_target_id(code: bytes, target_id: str) -> bytes:
    """The code object with ``target_id`` in its metadata, which HIP compares with the device's.

    TVM's triple has the environment ``hcc``, which HIP's loader does not know.
    """
    import msgpack

    header, offset, size = _note(code)
    table = msgpack.unpackb(code[offset : offset + size])
    if table["amdhsa.target"] == target_id:
        return code
    encoded = msgpack.packb({**table, "amdhsa.target": target_id})
    room, needed = _aligned(size), _aligned(len(encoded))
    if needed > room:
        raise AssayError("The metadata of the code object do not fit their place.")
    result = bytearray(code)
    result[offset : offset + room] = encoded.ljust(room, b"\0")
    name_bytes, _, kind = _NOTE_HEADER.unpack_from(code, header)
    _NOTE_HEADER.pack_into(result, header, name_bytes, len(encoded), kind)
    _shrink_notes(result, room - needed)
    return bytes(result)


def _shrink_notes(code: bytearray, count: int) -> None:
    """Take ``count`` bytes off the end of the segment and of the section of notes, which hold one note."""
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(bytes(code)))
    table, entry = elf.header.e_phoff, elf.header.e_phentsize
    for index, segment in enumerate(elf.iter_segments()):
        if segment.header.p_type == "PT_NOTE":
            for field in (_SEGMENT_FILE_BYTES, _SEGMENT_MEMORY_BYTES):
                _add(code, table + index * entry + field, -count)
    table, entry = elf.header.e_shoff, elf.header.e_shentsize
    for index, section in enumerate(elf.iter_sections()):
        if section.header.sh_type == "SHT_NOTE":
            _add(code, table + index * entry + _SECTION_BYTES, -count)


def _add(code: bytearray, offset: int, number: int) -> None:
    (value,) = _WORD.unpack_from(code, offset)
    _WORD.pack_into(code, offset, value + number)


def _aligned(size: int) -> int:
    return -(-size // 4) * 4


def _note(code: bytes) -> tuple[int, int, int]:
    """Offsets of the header of the note with metadata and of the metadata, and their bytes."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        notes = [
            note
            for segment in ELFFile(io.BytesIO(code)).iter_segments()
            if segment.header.p_type == "PT_NOTE"
            for note in segment.iter_notes()
            if note["n_name"] == "AMDGPU" and int(note["n_type"]) == _METADATA_NOTE
        ]
    except (ELFError, ValueError) as error:
        raise AssayError(f"The code object is damaged: {error}") from error
    if len(notes) != 1:
        raise AssayError("The code object has no metadata.")
    (note,) = notes
    header = note["n_offset"]
    return header, header + _NOTE_HEADER.size + _aligned(note["n_namesz"]), note["n_descsz"]
