from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from assay.errors import UsageError
from assay.models.audio import read_wav, voice
from assay.models.registry import find_model


def _tone(rate: int, seconds: float = 0.5) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "float32"])
def test_samples_of_any_type_are_read_alike(dtype: str, tmp_path: Path) -> None:
    tone = _tone(16000)
    kind = np.dtype(dtype)
    if kind.kind == "u":
        stored = (tone * 127 + 128).astype(kind)
    elif kind.kind == "i":
        stored = (tone * np.iinfo(kind).max).astype(kind)
    else:
        stored = tone.astype(kind)
    wavfile.write(tmp_path / "tone.wav", 16000, stored)
    read = read_wav(tmp_path / "tone.wav", 16000)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, tone, atol=0.02)  # 8 bits are 1/128 apart


def test_channels_are_mixed(tmp_path: Path) -> None:
    tone = _tone(16000).astype(np.float32)
    wavfile.write(tmp_path / "stereo.wav", 16000, np.stack([tone, -tone], axis=1))
    np.testing.assert_allclose(read_wav(tmp_path / "stereo.wav", 16000), 0, atol=1e-6)


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "tone.wav", 44100, _tone(44100).astype(np.float32))
    read = read_wav(tmp_path / "tone.wav", 16000)
    assert len(read) == 8000
    np.testing.assert_allclose(read[500:-500], _tone(16000)[500:-500], atol=0.02)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound at all, really not"])
def test_what_is_no_wav_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sound.wav").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as a WAV file"):
        read_wav(tmp_path / "sound.wav", 16000)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "silence.wav", 16000, np.zeros(0, np.int16))
    with pytest.raises(UsageError):
        read_wav(tmp_path / "silence.wav", 16000)


@pytest.mark.parametrize("name", ["silero-vad", "basic-pitch"])
@pytest.mark.parametrize("seconds", [0.01, 3.0])
def test_audio_models_decode_files_of_any_length(name: str, seconds: float, tmp_path: Path) -> None:
    wavfile.write(tmp_path / "tone.wav", 22050, _tone(22050, seconds).astype(np.float32))
    spec = find_model(name)
    assert spec.decode_file is not None
    arrays = spec.decode_file(tmp_path / "tone.wav")
    for item in spec.inputs:
        shape = tuple(dim if isinstance(dim, int) else 1 for dim in item.shape)
        assert arrays[item.name].shape == shape
        assert arrays[item.name].dtype.name == item.dtype


def test_generated_voice_is_in_range_and_loud_enough() -> None:
    signal = voice(16000, 16000, np.random.default_rng(0))
    assert signal.dtype == np.float32
    assert np.abs(signal).max() <= 1
    assert signal.std() > 0.05
