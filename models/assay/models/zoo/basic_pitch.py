"""Basic Pitch, audio to notes, with its real weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.audio import read_wav, voice
from assay.models.providers import PackageMember
from assay.models.spec import Array, DType, InputSpec, ModelSpec, Tolerance, Weights

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SPEC"]

_RATE = 22050
# Two seconds less one hop of 256 samples.
_WINDOW = 43844
_INPUT = "serving_default_input_2:0"


def _representative(sizes: Mapping[str, int], generator: np.random.Generator) -> dict[str, Array]:
    import numpy as np

    chord = sum(voice(_WINDOW, _RATE, generator) for _ in range(3)) / np.float32(3)
    return {_INPUT: np.asarray(chord, np.float32).reshape(1, _WINDOW, 1)}


def _decode(path: Path) -> dict[str, Array]:
    import numpy as np

    samples = read_wav(path, _RATE)[:_WINDOW]
    window = np.zeros((1, _WINDOW, 1), np.float32)
    window[0, : len(samples), 0] = samples
    return {_INPUT: window}


SPEC = ModelSpec(
    name="basic-pitch",
    description="Basic Pitch: notes, onsets and pitch contours in two seconds of music.",
    provider=PackageMember(
        distribution="basic-pitch",
        version="0.4.0",
        member="basic_pitch/saved_models/icassp_2022/nmp.onnx",
        sha256="2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
    ),
    inputs=(InputSpec(name=_INPUT, dtype=DType.FLOAT32, shape=(1, _WINDOW, 1)),),
    weights=Weights.TRAINED,
    licence="Apache-2.0",
    # Posteriors in 0 to 1, after a logarithm that amplifies rounding where the spectrum is nearly silent.
    tolerance=Tolerance(absolute=1e-3, relative=1e-3),
    representative_inputs=_representative,
    decode_file=_decode,
    tags=frozenset({"audio", "cnn"}),
)
