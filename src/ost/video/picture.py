"""Convert decoded pictures to upright 8-bit RGB, with swscale doing the scaling where the pixels stay the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ost.errors import VideoError
from ost.types import Preprocess

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

MAX_PIXELS = 40_000_000  # 8K is 33 million; a file that claims more is broken or an attack
SIZES_CHANGE = "the picture changes its size; all frames are stretched to the first one's"
MAX_ASPECT = 30  # long side to short side
# swscale always widens its filter when it shrinks. Without antialiasing the two agree within 2/255 on average
# down to this scale (tests/video/test_scaling.py measures it on real clips).
SWSCALE_MIN_SCALE = 0.9


def scales_alike(preprocess: Preprocess, width: int, height: int) -> bool:
    """Return whether swscale gives the same pixels as full-size conversion followed by resizing."""
    if preprocess.antialias:
        return True
    new_width, new_height = preprocess.resized(width, height)
    return min(new_width / width, new_height / height) >= SWSCALE_MIN_SCALE


def check_size(name: object, width: int, height: int) -> None:
    """Refuse a picture that would fill the memory, at full size or scaled to a fixed short side.

    Raises:
        VideoError: a picture claims an absurd size.
    """
    short, long = sorted((width, height))
    if short < 1 or width * height > MAX_PIXELS or long > MAX_ASPECT * short:
        raise VideoError(name, f"a frame of it claims {width} x {height} pixels")


class Converter:
    """Convert decoded frames of one file to upright pictures, with one swscale context."""

    def __init__(self, name: str, preprocess: Preprocess | None) -> None:
        from av.video.reformatter import VideoReformatter

        self.name = name
        self.preprocess = preprocess
        self.scale = VideoReformatter().reformat

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return uint8 [H, W, 3], scaled as `preprocess` says; alpha is dropped, as players do.

        Raises:
            VideoError: the frame claims an absurd size.
        """
        from av.video.reformatter import Interpolation

        width, height = frame.width, frame.height
        check_size(self.name, width, height)
        if self.preprocess is not None and scales_alike(self.preprocess, width, height):
            target = self.preprocess.resized(width, height)  # the short side is the short side, turned or not
            # Without full chroma swscale makes every grey that it scales 2/255 darker.
            method = Interpolation[self.preprocess.interpolation.upper()] | Interpolation.FULL_CHR_H_INT
            scaled = self.scale(frame, *target, format="rgb24", interpolation=method)
            return upright(scaled.to_ndarray(), frame)
        full = self.scale(frame, format="rgb24").to_ndarray()
        return scaled_rgb(upright(full, frame), self.preprocess)


def upright(picture: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Return [H, W, 3] as the frame's display matrix (ISO 14496-12, 8.3.2) shows it: in quarter turns and mirrored.

    The matrix (a b u, c d v, x y w) sends a pixel (p, q) to (a p + c q + x, b p + d q + y).
    """
    a, b, c, d = _display_matrix(frame)
    if abs(b) > abs(a):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _display_matrix(frame: VideoFrame) -> tuple[float, float, float, float]:
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 does not know the EXIF side data of photos, and then lists none at all
        matrix = None
    if matrix is not None:
        a, b, _, c, d, *_ = np.frombuffer(memoryview(matrix), np.int32).tolist()
        return a, b, c, d
    turn = math.radians(frame.rotation)
    return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)


def stack_pictures(pictures: list[np.ndarray]) -> np.ndarray:
    """Stack pictures to uint8 [T, H, W, 3], stretching pictures of another size to that of the first."""
    from av import VideoFrame

    height, width = pictures[0].shape[:2]
    return np.stack(
        [
            picture
            if picture.shape == pictures[0].shape
            else VideoFrame.from_ndarray(picture, format="rgb24").reformat(width, height).to_ndarray()
            for picture in pictures
        ]
    )


def scaled_rgb(picture: np.ndarray, preprocess: Preprocess | None) -> np.ndarray:
    """Return uint8 [H, W, 3] resized as `preprocess` says, not cropped."""
    if preprocess is None:
        return picture
    import torch

    from ost.video.transform import resize

    pixels = torch.from_numpy(np.require(picture, requirements=["C", "W"])).permute(2, 0, 1)[None]
    return resize(pixels, preprocess)[0].permute(1, 2, 0).byte().numpy()
