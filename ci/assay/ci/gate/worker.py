"""The process that runs models for whoever counts from outside: its job comes on stdin, as JSON.

It runs under either side's own interpreter, where any version of Assay may lie, and so uses of it nothing but
``assay.runtime.load`` and ``Model.run``, and for language models ``load_decoder`` and ``forward``, which
users call too: both sides are measured by the same code, and each is loaded by its own runtime. ``sampling``
in the job is the path of ``assay.benchmarks.sampling`` of the Assay that measures.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

__all__ = ["load_inputs", "load_subject", "main"]

_ALIGNMENT_BYTES = 64
_PROMPT = "prompt"


def main() -> int:
    """Do the job on stdin; 0, or 1 with one line on stderr."""
    job = json.load(sys.stdin)
    _module(job["sampling"]).limit_threads(job["threads"], job["cpus"])
    try:
        _run(job)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _run(job: dict[str, Any]) -> None:
    """Load each model, and run it as often as the job says."""
    for subject in job["subjects"]:
        inputs = load_inputs(subject["inputs"])
        # Checking digests would take most of the instructions.
        model = load_subject(subject, inputs, threads=job["threads"], verify=False)
        for _ in range(job["calls"]):
            model.run(inputs)


def load_subject(subject: dict[str, Any], inputs: dict[str, Any], **options: Any) -> Any:
    """What ``run(inputs)`` measures: a model, or a phase of a language model."""
    import assay.runtime

    if subject.get("phase") is None:
        return assay.runtime.load(subject["artifact"], **options)
    context = len(inputs[_PROMPT]) + 1
    decoder = assay.runtime.load_decoder(subject["artifact"], context=context, **options)
    return _Phase(decoder, subject["phase"])


class _Phase:
    """``prefill``: a prompt into an empty cache. ``decode``: one token, with the prompt in the cache."""

    def __init__(self, decoder: Any, phase: str) -> None:
        self._decoder = decoder
        self._sequence = decoder.sequence()
        self._decodes = phase == "decode"

    def run(self, inputs: dict[str, Any]) -> int:
        """The likeliest token that follows."""
        prompt = inputs[_PROMPT].tolist()
        if self._decodes and len(self._sequence):
            self._sequence.truncate(len(prompt))
            tokens = prompt[:1]
        else:
            self._sequence.truncate(0)
            tokens = prompt
        return int(self._decoder.forward([(self._sequence, tokens)]).argmax())


def _module(path: str) -> ModuleType:
    """The module in the file at ``path``, whatever packages are installed."""
    spec = importlib.util.spec_from_file_location("gate_sampling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_inputs(path: str) -> dict[str, Any]:
    """The arrays of an .npz file, each at a boundary where no runtime has to copy it."""
    import numpy as np

    found = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            array = archive[name]
            room = np.empty(array.nbytes + _ALIGNMENT_BYTES, np.uint8)
            start = -room.ctypes.data % _ALIGNMENT_BYTES
            aligned = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            aligned[...] = array
            found[name] = aligned
    return found


if __name__ == "__main__":
    sys.exit(main())
