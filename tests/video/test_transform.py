"""Crops at the right places, views in the right order, and torchvision's numbers on the same pixels."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, v2

from ost.errors import UsageError
from ost.types import Frames, Preprocess
from ost.video import transform as module
from ost.video.decode import decode
from ost.video.sample import CROPS
from ost.video.transform import central_crop, transform, view_preprocess

from .makers import video

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PLAIN = Preprocess(8, 8, "bilinear", True, (0.0,) * 3, (1 / 255,) * 3)  # values stay 0..255


def frames_of(*pictures, clips=1):
    return Frames(np.stack(pictures), (0.0,) * len(pictures), "made", clips)


def ramp(height, width):
    """Red tells the column, green the row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], axis=2).astype(np.uint8)


def corners(views):
    """(column, row) that each view's top left pixel came from."""
    return [tuple(int(v) for v in view[0, :2, 0, 0].round()) for view in views]


@pytest.mark.parametrize(
    ("height", "width", "crops", "expected"),
    [
        (8, 20, 1, [(6, 0)]),
        (20, 8, 1, [(0, 6)]),
        (8, 20, 3, [(0, 0), (6, 0), (12, 0)]),
        (20, 8, 3, [(0, 0), (0, 6), (0, 12)]),
        (8, 8, 3, [(0, 0)] * 3),
        (8, 20, 5, [(0, 0), (12, 0), (0, 0), (12, 0), (6, 0)]),
    ],
)
def test_crops_of_a_frame_without_room_along_the_short_side_lie_along_the_long_one(
    height, width, crops, expected
):
    views = transform(frames_of(ramp(height, width)), PLAIN, crops)
    assert views.shape == (crops, 1, 3, 8, 8) and views.dtype == torch.float32
    assert corners(views) == expected


def test_one_crop_of_a_larger_frame_is_its_centre():
    preprocess = Preprocess(8, 12, "bilinear", True, (0.0,) * 3, (1 / 255,) * 3)
    assert corners(transform(frames_of(ramp(12, 30)), preprocess)) == [(11, 2)]
    assert corners(transform(frames_of(ramp(30, 12)), preprocess)) == [(2, 11)]


def test_three_crops_resize_the_short_side_to_the_crop():
    preprocess = Preprocess(8, 12, "bicubic", True, MEAN, STD)
    assert view_preprocess(preprocess, 1) == preprocess
    assert view_preprocess(preprocess, 3).resize == 8
    assert view_preprocess(preprocess, 5) == view_preprocess(preprocess, 10) == preprocess
    assert transform(frames_of(ramp(12, 30)), preprocess, 3).shape == (3, 1, 3, 8, 8)


@given(
    st.integers(9, 60),
    st.integers(9, 60),
    st.sampled_from([(8, 8), (8, 9), (8, 12), (16, 19)]),
    st.sampled_from(["bilinear", "bicubic"]),
)
@example(40, 24, (8, 12), "bilinear")  # even rooms
@example(24, 40, (8, 12), "bilinear")
@example(41, 24, (8, 9), "bilinear")
def test_five_and_ten_crops_equal_torchvision_on_a_frame_resized_as_for_one_crop(
    height, width, sizes, interpolation
):
    preprocess = Preprocess(*sizes, interpolation, True, MEAN, STD)
    pixels = np.random.default_rng(height * 100 + width).integers(0, 256, (2, height, width, 3), np.uint8)
    frames = Frames(pixels, (0.0, 0.0), "made")
    five, ten = (transform(frames, preprocess, crops) for crops in (5, 10))
    resized = module.resize(torch.from_numpy(pixels).permute(0, 3, 1, 2), preprocess)
    assert min(resized.shape[-2:]) == preprocess.resize
    tower_input, size = preprocess.normalised(resized), [preprocess.size] * 2
    even = all((side - preprocess.size) % 2 == 0 for side in resized.shape[-2:])
    for ours, theirs in (
        (five, v2.functional.five_crop(tower_input, size)),
        (ten, v2.functional.ten_crop(tower_input, size)),
    ):
        assert len(ours) == len(theirs)
        for i, (own, expected) in enumerate(zip(ours, theirs, strict=True)):
            if i % 5 != 4 or even:  # of an odd room torchvision's centre has the half pixel on the other side
                assert torch.equal(own, expected)
    centre = transform(frames, preprocess)[0]
    assert torch.equal(five[4], centre) and torch.equal(ten[4], centre)
    assert torch.equal(ten[9], centre.flip(-1))


@pytest.mark.parametrize("crops", CROPS)
@pytest.mark.parametrize(("height", "width"), [(12, 31), (31, 12), (12, 12)])
def test_the_central_crop_is_the_one_around_the_middle_and_not_mirrored(height, width, crops):
    preprocess = view_preprocess(Preprocess(8, 12, "bilinear", True, (0.0,) * 3, (1 / 255,) * 3), crops)
    frames = frames_of(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    view = transform(frames, preprocess, crops)[central_crop(crops)]
    assert torch.equal(view, transform(frames, preprocess)[0])


def test_two_clips_of_ten_crops_are_ordered_clip_by_clip():
    preprocess = Preprocess(8, 10, "bilinear", True, MEAN, STD)
    pictures = [ramp(10, 20) + np.uint8(frame) for frame in range(6)]
    both = transform(frames_of(*pictures, clips=2), preprocess, 10)
    assert both.shape == (20, 3, 3, 8, 8)
    each = [transform(frames_of(*part), preprocess, 10) for part in (pictures[:3], pictures[3:])]
    assert torch.equal(both, torch.cat(each))


def test_four_clips_of_three_crops_are_ordered_clip_by_clip():
    pictures = [np.full((8, 20, 3), 10 * clip + frame, np.uint8) for clip in range(4) for frame in range(2)]
    for picture in pictures:
        picture[:, :, 1] = np.arange(20)
    views = transform(frames_of(*pictures, clips=4), PLAIN, 3)
    assert views.shape == (12, 2, 3, 8, 8)
    for view, (clip, crop) in zip(views, np.ndindex(4, 3), strict=True):
        assert view[:, 0, 0, 0].round().tolist() == [10 * clip, 10 * clip + 1]
        assert view[:, 1, 0, 0].round().tolist() == [6 * crop] * 2


@given(
    st.integers(9, 60),
    st.integers(9, 60),
    st.sampled_from([(8, 8), (8, 12), (16, 16), (16, None)]),
    st.sampled_from(["bilinear", "bicubic"]),
    st.booleans(),
)
def test_one_crop_equals_torchvision(height, width, sizes, interpolation, antialias):
    preprocess = Preprocess(*sizes, interpolation, antialias, MEAN, STD)
    pixels = np.random.default_rng(height * 100 + width).integers(0, 256, (2, height, width, 3), np.uint8)
    ours = transform(Frames(pixels, (0.0, 0.0), "made"), preprocess)[0]
    new_width, new_height = preprocess.resized(width, height)
    oracle = v2.Compose(
        [
            v2.ToDtype(torch.float32),
            v2.Resize((new_height, new_width), InterpolationMode(interpolation), antialias=antialias),
            v2.ToDtype(torch.float32, scale=True),
            v2.Lambda(lambda x: x.clamp(0, 255).round() / 255),
            v2.Lambda(lambda x: floor_crop(x, preprocess.size)),
            v2.Normalize(MEAN, STD),
        ]
    )
    torch.testing.assert_close(ours, oracle(torch.from_numpy(pixels).permute(0, 3, 1, 2)), atol=0.02, rtol=0)


def floor_crop(pixels, size):
    """Centre crop; torchvision rounds a half pixel to the even side, this to the left and top."""
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return v2.functional.crop(pixels, top, left, size, size)


def test_normalising_equals_torchvision_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    ours = transform(Frames(pixels, (0.0,) * 3, "made"), Preprocess(16, 16, "bicubic", True, MEAN, STD))[0]
    scaled = v2.functional.to_dtype(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.float32, scale=True)
    torch.testing.assert_close(
        ours, v2.functional.normalize(scaled, list(MEAN), list(STD)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("crops", CROPS)
@pytest.mark.parametrize("size", [(640, 360), (360, 640), (120, 90), (175, 131)])
@pytest.mark.parametrize("short", [32, 40])
@pytest.mark.parametrize("antialias", [True, False])
def test_frames_that_the_decoder_scaled_are_not_scaled_again(
    tmp_path, monkeypatch, size, short, crops, antialias
):
    scaled_once(tmp_path, monkeypatch, size, Preprocess(32, short, "bicubic", antialias, MEAN, STD), crops)


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (120, 90), (175, 131)])
@pytest.mark.parametrize("antialias", [True, False])
def test_whole_frames_that_the_decoder_scaled_are_not_scaled_again(tmp_path, monkeypatch, size, antialias):
    scaled_once(tmp_path, monkeypatch, size, Preprocess(32, None, "bicubic", antialias, MEAN, STD), 1)


def scaled_once(folder, monkeypatch, size, preprocess, crops):
    path = video(folder / "a.mp4", 3, size=size, pix_fmt="yuv444p")
    frames = decode(path, frames=2, preprocess=view_preprocess(preprocess, crops))
    monkeypatch.setattr(module, "interpolate", lambda *_, **__: pytest.fail("scaled again"))
    assert transform(frames, preprocess, crops).shape == (crops, 2, 3, 32, 32)


@pytest.mark.parametrize("crops", [0, 2, 4, 11])
def test_other_numbers_of_crops_are_refused(crops):
    for refuse in (central_crop, lambda n: transform(frames_of(ramp(8, 8)), PLAIN, n)):
        with pytest.raises(UsageError, match=f"1, 3, 5 or 10 crops, not {crops}"):
            refuse(crops)


@pytest.mark.parametrize("crops", [3, 5, 10])
def test_weights_that_see_the_whole_frame_have_one_crop(crops):
    squashed = Preprocess(8, None, "bilinear", True, MEAN, STD)
    assert view_preprocess(squashed, 1) == squashed
    with pytest.raises(UsageError, match=f"whole frame at once.* {crops} crops; use one crop"):
        view_preprocess(squashed, crops)
