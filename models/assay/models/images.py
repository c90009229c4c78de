"""Image inputs: files decoded as the classic networks expect them, and generated images that look real."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import MissingDependencyError, UsageError
from assay.models.spec import Array, RepresentativeInputs

if TYPE_CHECKING:
    import numpy as np

__all__ = ["decode_image", "image_input"]

# Statistics of ImageNet, by which the classic networks normalise red, green and blue.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
# The shorter side is scaled to this many times the crop, as in the usual evaluation: 256 for 224.
_RESIZE = 256 / 224


def image_input(name: str, side: int) -> RepresentativeInputs:
    """Representative inputs for ``name``: float32 [batch, 3, side, side], normalised.

    The batch is the size of the dimension ``batch`` where the model has one, else 1.
    """

    def make(sizes: Mapping[str, int], generator: np.random.Generator) -> dict[str, Array]:
        import numpy as np

        images = [_picture(side, generator) for _ in range(sizes.get("batch", 1))]
        return {name: np.stack([_normalised(image) for image in images])}

    return make


def decode_image(name: str, side: int) -> Callable[[Path], dict[str, Array]]:
    """A function from an image file to ``{name: float32 [1, 3, side, side]}``.

    The image is scaled, cropped at its centre and normalised by ImageNet's statistics. It raises UsageError
    for a file that is no image.
    """

    def decode(path: Path) -> dict[str, Array]:
        import numpy as np

        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError:
            raise MissingDependencyError("pillow", "compile") from None
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise UsageError(f"{str(path)!r} cannot be read as an image: {error}.") from error
        scale = _RESIZE * side / min(image.size)
        width, height = (max(side, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - side) // 2, (height - side) // 2
        pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 255
        return {name: _normalised(pixels)[np.newaxis]}

    return decode


def _normalised(pixels: Array) -> Array:
    """From [height, width, 3] in 0 to 1 to contiguous [3, height, width]."""
    import numpy as np

    scaled = (pixels - np.array(_MEAN, np.float32)) / np.array(_DEVIATION, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)


def _picture(side: int, generator: np.random.Generator) -> Array:
    """Float32 [side, side, 3] in 0 to 1 with smooth regions, edges and noise, like a photograph."""
    import numpy as np

    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    picture = np.empty((side, side, 3), np.float32)
    for channel in range(3):
        wave, phase = generator.uniform(1, 6, 2), generator.uniform(0, 6.3)
        picture[..., channel] = 0.5 + 0.25 * np.sin(wave[0] * 6.3 * rows + wave[1] * 6.3 * columns + phase)
    for _ in range(6):
        centre, radius = generator.uniform(0, 1, 2), generator.uniform(0.05, 0.3)
        inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        picture[inside] = generator.uniform(0, 1, 3)
    picture += generator.normal(0, 0.03, picture.shape)
    return np.clip(picture, 0, 1).astype(np.float32)
