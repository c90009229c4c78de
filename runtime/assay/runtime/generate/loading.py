"""Loading the artifact of a decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from assay.errors import UsageError
from assay.runtime.amx import request_tiles_for
from assay.runtime.artifact import Artifact, open_artifact
from assay.runtime.cpu import available_cores
from assay.runtime.drivers.opening import open_driver
from assay.runtime.generate.cache import KvCache
from assay.runtime.generate.decoder import Decoder
from assay.runtime.generate.engine import DeviceEngine, DriverEngine, Engine, VmEngine
from assay.runtime.generate.estimate import check_fits, choose_context
from assay.runtime.levels import Choice, choose
from assay.runtime.manifest import DecoderInfo, Execution, Manifest

__all__ = ["decoder_info", "load_decoder"]


def load_decoder(
    path: Path | str,
    *,
    threads: int | None = None,
    context: int | None = None,
    sequences: int = 1,
    verify: bool = True,
    level: str | None = None,
    device: str | None = None,
) -> Decoder:
    """Load the decoder's artifact at ``path``, with a cache for ``sequences`` texts of ``context`` tokens.

    ``context`` is by default as much as the model has, and 4096 at most. ``threads``, ``verify``, ``level``
    and ``device`` are as for ``assay.runtime.load``; a device keeps the cache in its own memory. Before
    anything is allocated, what it will take is compared with the memory that is free.

    Raises UsageError for an artifact that is no decoder and for numbers out of range, CapacityError where
    memory does not suffice, and otherwise what ``assay.runtime.load`` raises.
    """
    artifact = open_artifact(path, verify=verify)
    manifest = artifact.manifest
    info = decoder_info(manifest, path)
    if sequences < 1:
        raise UsageError(f"sequences must be at least 1, not {sequences}.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}.")
    context = choose_context(info, context)
    choice = choose(manifest, level, device)
    chosen = choice.level
    check_fits(manifest, chosen, context=context, sequences=sequences)
    request_tiles_for(chosen.target.features)
    template = None
    if info.chat_template is not None:
        template = artifact.read(info.chat_template).decode("utf-8", "replace")
    return Decoder(
        info,
        _engine_maker(artifact, choice),
        name=manifest.model.name,
        context=context,
        sequences=sequences,
        threads=available_cores() if threads is None else threads,
        tokenizer_content=None if info.tokenizer is None else artifact.read(info.tokenizer),
        template=template,
        level=chosen.target.name,
        device=choice.device,
        executed=chosen.executed is not Execution.NEVER,
    )


def _engine_maker(artifact: Artifact, choice: Choice) -> Callable[[KvCache], Engine]:
    """What makes the engine for a cache, which TVM's virtual machine takes as tensors, others as arrays."""
    level = choice.level
    if level.entry.driver == "device":
        from assay.runtime.drivers.plan_device import PlanOnDevice

        calls = PlanOnDevice(artifact, level.entry, choice.device).calls
        return lambda cache: DeviceEngine(calls, cache)
    if level.entry.driver == "tvm-vm":
        from assay.runtime.drivers.tvm_vm import TvmVm

        machine = TvmVm(artifact, level.entry)
        return lambda cache: VmEngine(machine, cache)
    driver = open_driver(artifact, level.entry)
    return lambda cache: DriverEngine(driver, cache)


def decoder_info(manifest: Manifest, path: Path | str) -> DecoderInfo:
    """The manifest's description of the decoder. Raises UsageError where the artifact is none."""
    if manifest.decoder is None:
        raise UsageError(
            f"{path} is not a decoder: {manifest.model.name} generates no text.",
            hint=f"Run it on inputs: assay run {path}",
        )
    return manifest.decoder
