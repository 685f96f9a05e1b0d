"""Make the thumbnails of sampled frames for the pages."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from ost.types import Frames, Thumbnails

if TYPE_CHECKING:
    import numpy as np

SHORT_SIDE, LONG_SIDE, QUALITY = 160, 640, 75  # pixels, pixels, JPEG quality


def thumbnails(frames: Frames) -> Thumbnails:
    """Return the frames of the middle clip as small JPEGs; frames are never enlarged."""
    length = len(frames.pixels) // frames.clips
    start = frames.clips // 2 * length
    height, width = frames.pixels.shape[1:3]
    return Thumbnails(tuple(map(_jpeg, frames.pixels[start : start + length])), width / height)


def _jpeg(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(pixels)
    scale = min(1.0, SHORT_SIDE / min(image.size), LONG_SIDE / max(image.size))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
