"""The process that measures one engine on a language model once: it reads a job on stdin.

Token ids go in, and the ids of the likeliest tokens come out: tokenization is outside of all figures, and
the choice of the largest logit inside.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from assay.benchmarks.llm.engine import LanguageFiles, LanguageSession
from assay.benchmarks.llm.job import DecodeSteps, LanguageJob, LanguageReport
from assay.benchmarks.process import serve
from assay.benchmarks.sampling import peak_memory

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["main", "measure_session"]

_WARM_UP_STEPS = 4


def main() -> int:
    """Do the job on stdin; 0, or 1 with one line on stderr."""
    return serve([msgspec.json.decode(sys.stdin.buffer.read(), type=LanguageJob)], _measure)


def _measure(job: LanguageJob) -> LanguageReport:
    from assay.benchmarks.llm import language_engines

    files = LanguageFiles(
        name=job.model,
        artifact=Path(job.artifact),
        canonical=Path(job.canonical) if job.canonical else None,
        gguf=Path(job.gguf) if job.gguf else None,
        folder=Path(job.folder) if job.folder else None,
    )
    # The last steps run past the deepest point, and the first ones past the prompt.
    context = max((len(job.prompts[0]), *job.depths)) + max(job.new_tokens, _WARM_UP_STEPS) + 1
    start = perf_counter()
    session = language_engines()[job.engine].load(files, job.threads, context, job.sequences)
    load_time = perf_counter() - start
    gc.collect()
    # Its pauses would be charged to whichever engine runs when they come.
    gc.disable()
    times, decodes, logits = measure_session(session, job)
    if job.logits:
        import numpy as np

        np.save(job.logits, logits)
    return LanguageReport(
        load_time=load_time, first_token_times=times, decodes=decodes, peak_memory=peak_memory()
    )


def measure_session(
    session: LanguageSession, job: LanguageJob
) -> tuple[tuple[float, ...], tuple[DecodeSteps, ...], npt.NDArray[np.float32]]:
    """Times to the first tokens, decode steps at each depth, and the logits after the prompts."""
    session.advance(job.prompts)
    for _ in range(_WARM_UP_STEPS):
        session.advance([own[:1] for own in job.prompts])
    times = []
    for _ in range(job.prefills):
        session.reset()
        before = perf_counter()
        logits = session.advance(job.prompts)
        latest = logits.argmax(axis=-1)
        times.append(perf_counter() - before)
    decodes = []
    depth = len(job.prompts[0])
    for wanted in job.depths:
        if wanted > depth:
            filler = [_cycled(own, depth, wanted) for own in job.prompts]
            latest = session.advance(filler).argmax(axis=-1)
            depth = wanted
        seconds, tokens = [], [int(latest[0])]
        for _ in range(job.new_tokens):
            before = perf_counter()
            latest = session.advance([[int(token)] for token in latest]).argmax(axis=-1)
            seconds.append(perf_counter() - before)
            tokens.append(int(latest[0]))
        depth += job.new_tokens
        decodes.append(DecodeSteps(depth=wanted, seconds=tuple(seconds), tokens=tuple(tokens)))
    return tuple(times), tuple(decodes), logits


def _cycled(prompt: Sequence[int], start: int, end: int) -> list[int]:
    """Tokens ``start`` to ``end`` of the prompt repeated without end."""
    return [prompt[index % len(prompt)] for index in range(start, end)]


if __name__ == "__main__":
    sys.exit(main())
