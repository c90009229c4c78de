"""Audio inputs: generated signals that look real, and WAV files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import MissingDependencyError, UsageError
from assay.models.spec import Array

if TYPE_CHECKING:
    import numpy as np

__all__ = ["read_wav", "voice"]


def voice(samples: int, rate: int, generator: np.random.Generator) -> Array:
    """Float32 [samples] in -1 to 1: harmonics of a wandering pitch under an envelope, over quiet noise.

    ``rate`` is in samples per second.
    """
    import numpy as np

    seconds = np.arange(samples) / rate
    pitch = generator.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * generator.uniform(2, 5) * seconds))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    signal = np.zeros(samples)
    for harmonic in range(1, 12):
        signal += generator.uniform(0.2, 1) / harmonic * np.sin(harmonic * phase + generator.uniform(0, 6.3))
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * generator.uniform(1, 3) * seconds + generator.uniform(0, 6.3))
    signal = 0.25 * signal * envelope + generator.normal(0, 0.01, samples)
    return np.clip(signal, -1, 1).astype(np.float32)


def read_wav(path: Path, rate: int) -> Array:
    """The samples of a WAV file as float32 in -1 to 1, one channel, ``rate`` of them per second.

    Channels are mixed and other rates resampled. Raises UsageError for a file that is no WAV file,
    MissingDependencyError without SciPy.
    """
    import warnings

    import numpy as np

    try:
        from scipy.io import wavfile
        from scipy.signal import resample_poly
    except ImportError:
        raise MissingDependencyError("scipy", "compile") from None
    try:
        with warnings.catch_warnings():
            # SciPy warns of chunks that hold no samples.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            found_rate, samples = wavfile.read(path)
    except Exception as error:  # SciPy raises whatever a damaged header leads it into.
        raise UsageError(f"{str(path)!r} cannot be read as a WAV file: {error}.") from error
    if samples.dtype.kind == "u":
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / np.iinfo(samples.dtype).max
    samples = np.asarray(samples, np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.size == 0:
        raise UsageError(f"{str(path)!r} has no samples in it.")
    if found_rate != rate:
        divisor = np.gcd(found_rate, rate)
        samples = resample_poly(samples, rate // divisor, found_rate // divisor)
    return np.ascontiguousarray(samples, np.float32)
