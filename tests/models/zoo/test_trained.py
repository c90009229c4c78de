"""Models with real weights do what they were trained for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from scipy.io import wavfile

from assay.models.audio import voice
from assay.models.export import export_canonical
from assay.models.registry import find_model


def _session(name: str, folder: Path) -> onnxruntime.InferenceSession:
    path = export_canonical(find_model(name), folder).path
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _speech_probability(session: onnxruntime.InferenceSession, samples: np.ndarray) -> float:
    """The highest probability over the windows of a signal, the state carried along."""
    state, context, highest = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), 0.0
    for start in range(0, len(samples) - 511, 512):
        window = np.concatenate([context, samples[start : start + 512]]).astype(np.float32)
        probability, state = session.run(None, {"input": window[None], "state": state})
        context = window[-64:]
        highest = max(highest, probability.item())
    return highest


def test_silero_tells_voice_from_silence_and_noise(tmp_path: Path) -> None:
    session = _session("silero-vad", tmp_path)
    generator = np.random.default_rng(0)
    voiced = max(_speech_probability(session, voice(16000, 16000, generator)) for _ in range(4))
    silent = _speech_probability(session, np.zeros(16000, np.float32))
    noisy = _speech_probability(session, generator.normal(0, 0.01, 16000))
    assert voiced > 0.5
    assert silent < 0.2
    assert noisy < 0.2


def test_basic_pitch_hears_the_note_that_sounds(tmp_path: Path) -> None:
    session = _session("basic-pitch", tmp_path / "model")
    seconds = np.arange(44100) / 22050
    tone = sum(0.3 / k * np.sin(2 * np.pi * 440 * k * seconds) for k in (1, 2, 3, 4))
    wavfile.write(tmp_path / "a4.wav", 22050, np.asarray(tone, np.float32))
    decode = find_model("basic-pitch").decode_file
    assert decode is not None
    names = [value.name for value in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, decode(tmp_path / "a4.wav")), strict=True))
    # 88 piano keys from A0; A4 is the 49th.
    notes = outputs["StatefulPartitionedCall:1"][0].mean(axis=0)
    assert notes.shape == (88,)
    assert int(notes.argmax()) == 48


@pytest.mark.slow
@pytest.mark.torch
def test_minilm_puts_sentences_of_one_meaning_together(tmp_path: Path) -> None:
    session = _session("minilm", tmp_path / "model")
    (tmp_path / "text.txt").write_text(
        "A man is eating a meal in a restaurant.\n"
        "Somebody has dinner at a diner.\n"
        "The stock market fell sharply after the interest rate decision this morning.\n"
    )
    decode = find_model("minilm").decode_file
    assert decode is not None
    (vectors,) = session.run(None, decode(tmp_path / "text.txt"))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.5
    assert similarity[0, 2] < 0.2
