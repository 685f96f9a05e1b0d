"""Training augmentation: one draw a clip, out of one generator and nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional

from ost.errors import UsageError
from ost.types import Frames, Preprocess
from ost.video.augment import NONE, Augmentation, _draw_box, crop_clip, draw_colour, recolour, train_resize
from ost.video.transform import transform

SCALES = Augmentation().scales
STRONG = Augmentation(jitter=1, randaugment=(2, 15))
quick = settings(max_examples=30, deadline=None)
sides = st.integers(1, 60)
seeds = st.integers(0, 2**32)


def picture(height, width, frames=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8)


def generator(seed):
    return np.random.default_rng(seed)


@quick
@given(sides, sides, st.integers(1, 40), seeds)
def test_a_still_clip_stays_still(height, width, size, seed):
    still = picture(height, width, seed=seed % 100).expand(4, -1, -1, -1)
    rng = generator(seed)
    pixels = crop_clip(still, size, STRONG, rng)
    pixels = recolour(pixels, draw_colour(STRONG, rng), STRONG)
    assert pixels.shape == (4, 3, size, size)
    assert pixels.dtype == torch.uint8
    assert (pixels == pixels[:1]).all()


@quick
@given(sides, sides, st.integers(1, 40), seeds)
def test_the_crop_lies_inside_the_picture_at_a_corner_or_the_middle(height, width, size, seed):
    top, left, tall, wide = _draw_box(height, width, size, SCALES, generator(seed))
    assert tall >= 1 and wide >= 1
    down, right = height - tall, width - wide
    corners = {(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)}
    assert down >= 0 and right >= 0
    assert (top, left) in corners


@quick
@given(st.integers(8, 60), st.integers(8, 60), st.integers(1, 40), seeds)
def test_the_sides_of_a_crop_are_scales_at_most_one_step_apart(height, width, size, seed):
    short = min(height, width)
    _, _, tall, wide = _draw_box(height, width, size, SCALES, generator(seed))
    near = {
        (int(short * a), int(short * b))
        for i, a in enumerate(SCALES)
        for j, b in enumerate(SCALES)
        if abs(i - j) <= 1
    }
    assert (tall, wide) in near


def test_every_scale_and_position_comes_about_equally_often():
    boxes = [_draw_box(300, 400, 224, SCALES, generator(seed)) for seed in range(2000)]
    sizes = [(tall, wide) for _, _, tall, wide in boxes]
    assert len(set(sizes)) == 4 + 2 * 3
    # 200 of each are expected with a standard deviation of 13
    assert all(abs(sizes.count(size) - 200) < 70 for size in set(sizes))
    full = [(top, left) for top, left, tall, wide in boxes if (tall, wide) == (225, 225)]
    assert set(full) == {(0, 0), (0, 175), (75, 0), (75, 175), (37, 87)}


@quick
@given(sides, sides, st.integers(1, 40), seeds)
def test_never_flips_with_probability_0_and_always_with_1(height, width, size, seed):
    clip = picture(height, width, 2)
    plain = crop_clip(clip, size, Augmentation(flip=0), generator(seed))
    mirrored = crop_clip(clip, size, Augmentation(flip=1), generator(seed))
    assert torch.equal(mirrored, plain.flip(-1))


def test_flips_as_often_as_asked():
    clip = picture(4, 4)
    flipped = 0
    for seed in range(1000):
        found = crop_clip(clip, 4, Augmentation(scales=(), flip=0.3), generator(seed))
        assert torch.equal(found, clip) or torch.equal(found, clip.flip(-1))
        flipped += not torch.equal(found, clip)
    assert abs(flipped - 300) < 75  # five standard deviations


@quick
@given(st.integers(0, 40), st.integers(0, 40), st.integers(4, 30))
def test_no_augmentation_is_the_crop_of_recognition(more_height, more_width, size):
    clip = picture(size + more_height, size + more_width, 2)
    short = min(clip.shape[-2:])
    # zero mean and spread 1/255 leave the numbers of the pixels as they are
    pixels = Preprocess(size, short, "bilinear", False, (0.0,) * 3, (1 / 255,) * 3)
    frames = Frames(clip.permute(0, 2, 3, 1).numpy(), (0.0, 1.0), "clip")
    cropped = crop_clip(clip, size, NONE, generator(0))
    torch.testing.assert_close(cropped.float(), transform(frames, pixels)[0], atol=1e-3, rtol=0)
    assert draw_colour(NONE, generator(0)) == draw_colour(NONE, generator(1))
    assert torch.equal(recolour(cropped, draw_colour(NONE, generator(0)), NONE), cropped)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (1, 1), (5, 30), (30, 5)])
def test_a_picture_smaller_than_the_crop_is_enlarged_around_its_middle(shape):
    height, width = shape
    side = min(shape)
    clip = picture(height, width, 2)
    top, left = (height - side) // 2, (width - side) // 2
    middle = clip[..., top : top + side, left : left + side].float()
    expected = torch.nn.functional.interpolate(middle, size=(12, 12), mode="bilinear", align_corners=False)
    found = crop_clip(clip, 12, NONE, generator(0))
    torch.testing.assert_close(found.float(), expected.round(), atol=0, rtol=0)


def test_a_crop_of_the_right_size_is_not_resampled():
    augmentation = Augmentation(scales=(1.0,), flip=0)
    clip = picture(16, 16, 3)
    assert torch.equal(crop_clip(clip, 16, augmentation, generator(0)), clip)


@quick
@given(seeds)
def test_the_same_draw_gives_the_same_pixels_and_global_chance_is_left_alone(seed):
    clip = picture(9, 11, 2)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    def augmented():
        rng = generator(seed)
        cropped = crop_clip(clip, 8, STRONG, rng)
        colour = draw_colour(STRONG, rng)
        return colour, recolour(cropped, colour, STRONG)

    colour, pixels = augmented()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    torch.rand(3)
    np.random.rand(3)
    again, same = augmented()
    assert again == colour
    assert torch.equal(same, pixels)


@quick
@given(seeds)
def test_jitter_is_torchvisions_with_the_drawn_factors(seed):
    augmentation = Augmentation(jitter=1, grayscale=0)
    clip = picture(6, 5, 3, seed=seed % 100)
    colour = draw_colour(augmentation, generator(seed))
    assert {name for name, _ in colour.factors} == {"brightness", "contrast", "saturation", "hue"}
    assert not colour.grayscale
    adjust = {
        "brightness": functional.adjust_brightness,
        "contrast": functional.adjust_contrast,
        "saturation": functional.adjust_saturation,
        "hue": functional.adjust_hue,
    }
    frames = list(clip)
    for name, factor in colour.factors:
        middle = 0 if name == "hue" else 1
        assert abs(factor - middle) <= getattr(augmentation, name)
        frames = [adjust[name](frame, factor) for frame in frames]
    assert torch.equal(recolour(clip, colour, augmentation), torch.stack(frames))


def test_jitter_comes_in_every_order_and_as_often_as_asked():
    augmentation = Augmentation(jitter=0.25)
    drawn = [draw_colour(augmentation, generator(seed)) for seed in range(2000)]
    jittered = [tuple(name for name, _ in colour.factors) for colour in drawn if colour.factors]
    assert abs(len(jittered) - 500) < 100  # five standard deviations
    assert len(set(jittered)) == 24


@quick
@given(seeds)
def test_a_clip_without_colours_has_equal_channels(seed):
    augmentation = Augmentation(jitter=0.5, grayscale=1)
    pixels = recolour(picture(6, 5, 3), draw_colour(augmentation, generator(seed)), augmentation)
    assert pixels.shape == (3, 3, 6, 5)
    assert (pixels == pixels[:, :1]).all()


def test_randaugment_changes_pixels_and_depends_on_its_seed():
    augmentation = Augmentation(jitter=0, grayscale=0, randaugment=(2, 20))
    clip = picture(16, 16, 2)
    drawn = [draw_colour(augmentation, generator(seed)) for seed in range(12)]
    assert len({colour.seed for colour in drawn}) == 12
    found = [recolour(clip, colour, augmentation) for colour in drawn]
    assert (
        sum(not torch.equal(pixels, clip) for pixels in found) >= 8
    )  # a few operations do nothing by chance
    assert len({pixels.numpy().tobytes() for pixels in found}) >= 8


INVALID = {
    "flip": {"flip": 1.1},
    "negative flip": {"flip": -0.1},
    "no number": {"flip": float("nan")},
    "jitter": {"jitter": 2},
    "grayscale": {"grayscale": -1},
    "scale of nothing": {"scales": (1.0, 0.0)},
    "scale beyond the picture": {"scales": (1.2,)},
    "negative scale": {"scales": (-0.5,)},
    "operations": {"randaugment": (-1, 9)},
    "magnitude": {"randaugment": (2, 31)},
    "negative magnitude": {"randaugment": (2, -1)},
    "brightness": {"brightness": 1.5},
    "contrast": {"contrast": -0.1},
    "saturation": {"saturation": 2.0},
    "hue": {"hue": 0.6},
}


@pytest.mark.parametrize("invalid", INVALID.values(), ids=INVALID)
def test_settings_that_cannot_be_meant_are_refused_by_name(invalid):
    with pytest.raises(UsageError, match=next(iter(invalid))):
        Augmentation(**invalid)


@pytest.mark.parametrize("magnitude", [0, 30])
def test_the_extremes_of_randaugment_work(magnitude):
    augmentation = Augmentation(randaugment=(14, magnitude))
    for seed in range(10):
        colour = draw_colour(augmentation, generator(seed))
        assert recolour(picture(8, 8, 2), colour, augmentation).shape == (2, 3, 8, 8)


def test_training_leaves_room_around_the_crop_as_256_around_224():
    pixels = Preprocess(224, 224, "bicubic", True, (0.5,) * 3, (0.5,) * 3)
    assert train_resize(pixels).resize == 256
    assert train_resize(Preprocess(224, 300, "bicubic", True, (0.5,) * 3, (0.5,) * 3)).resize == 300
    squashed = Preprocess(224, None, "bicubic", True, (0.5,) * 3, (0.5,) * 3)
    assert train_resize(squashed) == squashed
