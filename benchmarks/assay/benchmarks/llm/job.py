"""What the harness asks of a worker that measures a language model, and what the worker answers."""

from __future__ import annotations

import msgspec

__all__ = ["DecodeSteps", "LanguageJob", "LanguageReport"]


class LanguageJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One round of one engine on ``sequences`` sequences at once.

    ``prompts`` holds the token ids of each sequence, all of one length. After the prompt, and then at each of
    ``depths`` (tokens in the cache, ascending, none less than the prompt's length), ``new_tokens`` are
    decoded greedily. ``logits`` is an .npy file for those after the prompts. ``cpus`` are the logical CPUs to
    stay on; the ``LanguageReport`` goes to ``report``.
    """

    engine: str
    model: str
    artifact: str
    canonical: str | None
    gguf: str | None
    folder: str | None
    threads: int
    cpus: tuple[int, ...]
    sequences: int
    prompts: tuple[tuple[int, ...], ...]
    depths: tuple[int, ...]
    new_tokens: int
    prefills: int
    logits: str | None
    report: str


class DecodeSteps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds of each decode step from ``depth`` tokens in the cache on; the first sequence's tokens."""

    depth: int
    seconds: tuple[float, ...]
    tokens: tuple[int, ...]


class LanguageReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one round measured: times in seconds, memory in bytes.

    ``first_token_times``: from the prompts of all sequences to the first token of each, once a prefill.
    ``peak_memory``: the process's largest resident size, None where the system does not tell.
    """

    load_time: float
    first_token_times: tuple[float, ...]
    decodes: tuple[DecodeSteps, ...]
    peak_memory: int | None
