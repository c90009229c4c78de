"""Inputs to calibrate on and to measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.compile.decoders import tiny

from assay.compile.quantize.samples import Purpose, representative_samples


def test_a_decoder_without_a_tokenizer_gets_random_tokens_that_all_count(tmp_path: Path) -> None:
    spec = tiny.model_spec(tiny.Tiny(), tmp_path)
    assert spec.decoder is not None
    samples = representative_samples(spec, Purpose.CALIBRATION, 3)
    again = representative_samples(spec, Purpose.CALIBRATION, 3)
    others = representative_samples(spec, Purpose.EVALUATION, 3)
    assert len(samples) == 3
    for sample, same, other in zip(samples, again, others, strict=True):
        ids = sample["input_ids"]
        assert ids.shape == (1, min(256, spec.decoder.context_length))
        assert 0 <= ids.min() < ids.max() < spec.decoder.vocabulary
        np.testing.assert_array_equal(sample["attention_mask"], np.ones_like(ids))
        assert sample["past_key_values.0.key"].shape[2] == 0
        np.testing.assert_array_equal(ids, same["input_ids"])
        assert not np.array_equal(ids, other["input_ids"])
