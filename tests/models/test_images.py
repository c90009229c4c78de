from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.errors import UsageError
from assay.models.images import decode_image, image_input


def test_an_image_is_scaled_cropped_and_normalised(tmp_path: Path) -> None:
    # Left half black, right half white: the crop must be centred for both to show equally.
    pixels = np.zeros((300, 600, 3), np.uint8)
    pixels[:, 300:] = 255
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    decoded = decode_image("data", 224)(path)["data"]
    assert decoded.shape == (1, 3, 224, 224)
    assert decoded.dtype == np.float32
    assert decoded.flags.c_contiguous
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(decoded[0, :, 112, 0], -mean / deviation, rtol=1e-5)
    np.testing.assert_allclose(decoded[0, :, 112, -1], (1 - mean) / deviation, rtol=1e-5)
    assert abs(int((decoded[0, 0, 112] > 0).sum()) - 112) <= 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_any_mode_have_three_channels(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new(mode, (10, 500)).save(path)
    assert decode_image("data", 32)(path)["data"].shape == (1, 3, 32, 32)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(UsageError, match="cannot be read as an image"):
        decode_image("data", 224)(path)


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match="cannot be read as an image"):
        decode_image("data", 224)(path)


def test_generated_images_fill_the_batch() -> None:
    images = image_input("data", 32)({"batch": 3}, np.random.default_rng(0))["data"]
    assert images.shape == (3, 3, 32, 32)
    assert (images[0] != images[1]).any()
