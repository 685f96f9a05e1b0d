"""Rotation and mirroring: frames come out as the display matrix of ISO 14496-12 shows them."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ost.types import Preprocess
from ost.video.decode import decode

from .makers import number, picture, video

HALF = (0.5, 0.5, 0.5)
ORIENTATIONS = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
MIRRORED = [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]


def shown(pixels, a, b, c, d):
    """Every pixel (p, q) sent to (a p + c q, b p + d q), as the standard says, moved back to the origin."""
    q, p = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    x, y = a * p + c * q, b * p + d * q
    x, y = x - x.min(), y - y.min()
    out = np.zeros((y.max() + 1, x.max() + 1, 3), np.uint8)
    out[y, x] = pixels
    return out


def with_matrix(path, a, b, c, d):
    """Write the matrix into an MP4 file's track header, byte by byte: 16.16 numbers, 44 behind its name."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    one = 1 << 16
    entries = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    assert data[at : at + 4] == one.to_bytes(4, "big")
    data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in entries)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("matrix", ORIENTATIONS + MIRRORED)
def test_the_display_matrix_is_applied(tmp_path, matrix):
    path = with_matrix(
        video(tmp_path / "a.mp4", size=(96, 48), pictures=[picture(1234, (96, 48))] * 2), *matrix
    )
    expected = shown(picture(1234, (96, 48)), *matrix)
    pixels = decode(path, frames=1).pixels[0]
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("matrix", ORIENTATIONS + MIRRORED)
def test_scaled_frames_are_upright_too(tmp_path, matrix, antialias):
    path = with_matrix(
        video(tmp_path / "a.mp4", size=(96, 48), pictures=[picture(1234, (96, 48))] * 2), *matrix
    )
    preprocess = Preprocess(24, 24, "bilinear", antialias, HALF, HALF)
    expected = shown(picture(1234, (48, 24)), *matrix)
    pixels = decode(path, frames=1, preprocess=preprocess).pixels[0]
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 16


def test_portrait_film_of_a_phone_stands_upright(tmp_path):
    # A phone held upright stores the scene's top at the left and the matrix (0 1, -1 0).
    upright = np.zeros((96, 48, 3), np.uint8)
    upright[:32] = 255
    stored = np.ascontiguousarray(np.rot90(upright))
    assert stored[:, 0].mean() == 255 and stored.shape == (48, 96, 3)
    path = with_matrix(video(tmp_path / "a.mp4", size=(96, 48), pictures=[stored] * 2), 0, 1, -1, 0)
    pixels = decode(path, frames=1).pixels[0]
    assert pixels.shape == (96, 48, 3)
    assert pixels[:30].mean() > 240 and pixels[34:].mean() < 15


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photos_are_turned_as_their_exif_says(tmp_path, orientation):
    photo = Image.fromarray(picture(1234))
    exif = photo.getexif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "a.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    (tmp_path / "folder").mkdir()
    photo.save(tmp_path / "folder" / "1.jpg", exif=exif, quality=95)
    for path in (tmp_path / "a.jpg", tmp_path / "folder"):
        pixels = decode(path, frames=1).pixels[0]
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).mean() < 3


def test_film_without_a_matrix_is_left_as_it_is(tmp_path):
    assert number(decode(video(tmp_path / "a.mkv", 1), frames=1).pixels[0]) == 0
