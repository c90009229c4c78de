"""Silero VAD, voice activity detection, with its real weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.audio import read_wav, voice
from assay.models.providers import BoundInputs, PackageMember
from assay.models.spec import Array, DType, InputSpec, ModelSpec, SymbolicDim, Tolerance, Weights

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SPEC"]

_RATE = 16000
# Each step takes 512 new samples (32 ms) after the last 64 of the step before.
_WINDOW = 576
_STATE = 128
_BATCH = SymbolicDim(name="batch", default=1, maximum=32)


def _representative(sizes: Mapping[str, int], generator: np.random.Generator) -> dict[str, Array]:
    import numpy as np

    batch = sizes["batch"]
    return {
        "input": np.stack([voice(_WINDOW, _RATE, generator) for _ in range(batch)]),
        # States as the recurrent cell leaves them: within -1 to 1 mostly.
        "state": generator.normal(0, 0.3, (2, batch, _STATE)).astype(np.float32),
    }


def _decode(path: Path) -> dict[str, Array]:
    import numpy as np

    samples = read_wav(path, _RATE)[:_WINDOW]
    window = np.zeros((1, _WINDOW), np.float32)
    window[0, : len(samples)] = samples
    return {"input": window, "state": np.zeros((2, 1, _STATE), np.float32)}


SPEC = ModelSpec(
    name="silero-vad",
    description="Silero VAD 6: the probability of speech in 32 ms of 16 kHz audio, one recurrent step.",
    # The variant in which the recurrent cell is spelt out; the others need the LSTM operator.
    provider=BoundInputs(
        source=PackageMember(
            distribution="silero-vad",
            version="6.2.3",
            member="silero_vad/data/silero_vad_op18_ifless.onnx",
            sha256="7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
        ),
        values={"sr": _RATE},
    ),
    inputs=(
        InputSpec(name="input", dtype=DType.FLOAT32, shape=(_BATCH, _WINDOW)),
        InputSpec(name="state", dtype=DType.FLOAT32, shape=(2, _BATCH, _STATE)),
    ),
    weights=Weights.TRAINED,
    licence="MIT",
    # Probabilities and cell states: 1e-5 is far below any threshold that a user sets.
    tolerance=Tolerance(absolute=1e-5, relative=1e-3),
    representative_inputs=_representative,
    decode_file=_decode,
    tags=frozenset({"audio", "recurrent"}),
)
