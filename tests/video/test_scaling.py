"""Scaling while converting gives the pixels that converting at full size and then resizing gives."""

import numpy as np
import pytest
import torch

from ost.types import Preprocess
from ost.video import picture as module
from ost.video.decode import decode
from ost.video.picture import SWSCALE_MIN_SCALE, scales_alike
from ost.video.transform import resize

from .makers import video

HALF = (0.5, 0.5, 0.5)
SHAPES = [(224, 256), (224, 224), (336, 336), (384, None), (112, 112)]
PREPROCESSES = [
    Preprocess(size, short, interpolation, antialias, HALF, HALF)
    for size, short in SHAPES
    for interpolation in ("bilinear", "bicubic")
    for antialias in (True, False)
]


def full_then_resized(path, preprocess, frames=2):
    pixels = torch.from_numpy(decode(path, frames=frames).pixels).permute(0, 3, 1, 2)
    return resize(pixels, preprocess).permute(0, 2, 3, 1).numpy()


def scene(size):
    """Sharp grey blocks under soft colours, as in the world: a camera has fewer colours than greys."""
    width, height = size
    rng = np.random.default_rng(0)
    blocks = rng.integers(40, 216, (height // 12 + 1, width // 12 + 1, 1)).repeat(12, 0).repeat(12, 1)
    y, x = np.mgrid[:height, :width, :1][:2] / 40
    tint = 30 * np.sin(np.concatenate([x, y, x + y], axis=2))
    return (blocks[:height, :width] + tint).clip(0, 255).astype(np.uint8)


def scaled_alike(path):
    """(preprocess, mean absolute difference of 0..255) wherever swscale is said to do."""
    height, width = decode(path, frames=1).pixels.shape[1:3]
    for preprocess in PREPROCESSES:
        if scales_alike(preprocess, width, height):
            fast = decode(path, frames=2, preprocess=preprocess).pixels.astype(float)
            yield preprocess, np.abs(fast - full_then_resized(path, preprocess)).mean()


def test_real_clips_scale_alike_within_2_of_255(clips):
    for path in clips:
        for preprocess, difference in scaled_alike(path):
            assert difference <= 2, f"{path.name}, {preprocess}: {difference:.2f}"


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le"])
@pytest.mark.parametrize("size", [(100, 80), (640, 360), (270, 480), (175, 131)])
def test_made_clips_scale_alike_within_2_of_255(tmp_path, size, pix_fmt):
    if pix_fmt != "yuv444p":
        size = tuple(side // 2 * 2 for side in size)
    path = video(tmp_path / "a.mp4", size=size, pix_fmt=pix_fmt, pictures=[scene(size)] * 3)
    for preprocess, difference in scaled_alike(path):
        assert difference <= 2, f"{preprocess}: {difference:.2f}"


def test_grey_stays_the_same_grey(tmp_path):
    for level in (0, 30, 128, 220, 255):
        path = video(
            tmp_path / "a.mp4", size=(320, 240), pictures=[np.full((240, 320, 3), level, np.uint8)] * 2
        )
        for preprocess in PREPROCESSES:
            pixels = decode(path, frames=1, preprocess=preprocess).pixels
            assert np.abs(pixels.astype(int) - level).max() <= 1


def test_shrinking_without_antialiasing_is_done_at_full_size(tmp_path):
    path = video(tmp_path / "a.mp4", 3, size=(640, 480))
    for preprocess in PREPROCESSES:
        if not scales_alike(preprocess, 640, 480):
            fast = decode(path, frames=2, preprocess=preprocess).pixels
            assert np.array_equal(fast, full_then_resized(path, preprocess))


@pytest.mark.parametrize(
    ("antialias", "short", "alike"), [(True, 10, True), (False, 89, False), (False, 90, True)]
)
def test_scales_alike_follows_antialiasing_and_scale(antialias, short, alike):
    assert SWSCALE_MIN_SCALE == 0.9
    assert scales_alike(Preprocess(10, short, "bilinear", antialias, HALF, HALF), 150, 100) is alike


def test_converting_scaled_frames_never_makes_them_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "scaled_rgb", lambda *_: pytest.fail("converted at full size"))
    preprocess = Preprocess(224, 224, "bicubic", True, HALF, HALF)
    assert decode(
        video(tmp_path / "a.mp4", 3, size=(640, 480)), frames=2, preprocess=preprocess
    ).pixels.shape == (
        2,
        224,
        298,
        3,
    )
