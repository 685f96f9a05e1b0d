"""Sampling arithmetic against METHOD's formulas in exact fractions, and properties of both samplers."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ost.errors import UsageError
from ost.video.sample import test_indices as middle_indices  # pytest would collect it as a test
from ost.video.sample import train_indices

LENGTHS, FRAMES, CLIPS = st.integers(1, 20_000), st.integers(1, 64), st.integers(1, 8)


def chunks(indices, size):
    return [indices[i : i + size] for i in range(0, len(indices), size)]


@given(LENGTHS, FRAMES)
def test_one_clip_takes_the_middle_of_equal_segments(n, frames):
    segments = [(Fraction(n * i, frames), Fraction(n * (i + 1), frames)) for i in range(frames)]
    middles = [(low + high) / 2 for low, high in segments]
    # Float division may fall to the other side of a whole number, and nowhere else.
    for index, middle in zip(middle_indices(n, frames), middles, strict=True):
        assert index == floor(middle) or (middle.denominator == 1 and index == middle - 1)


@pytest.mark.parametrize(
    ("n", "frames", "expected"),
    [(8, 4, [1, 3, 5, 7]), (10, 4, [1, 3, 6, 8]), (3, 6, [0, 0, 1, 1, 2, 2]), (1, 3, [0, 0, 0]), (5, 1, [2])],
)
def test_one_clip_equals_values_worked_by_hand(n, frames, expected):
    assert middle_indices(n, frames) == expected


@given(LENGTHS, FRAMES, CLIPS)
def test_indices_are_in_range_and_sorted_within_each_clip(n, frames, clips):
    indices = middle_indices(n, frames, clips)
    assert len(indices) == frames * clips
    assert all(0 <= i < n for i in indices)
    assert all(clip == sorted(clip) for clip in chunks(indices, frames))


@given(LENGTHS, FRAMES)
def test_short_video_repeats_frames_and_long_video_does_not(n, frames):
    distinct = len(set(middle_indices(n, frames)))
    assert distinct == min(n, frames)


@given(LENGTHS, FRAMES, CLIPS)
def test_clips_follow_one_another_within_each_segment(n, frames, clips):
    by_clip = chunks(middle_indices(n, frames, clips), frames)
    assert all(list(moments) == sorted(moments) for moments in zip(*by_clip, strict=True))
    if clips % 2:
        assert by_clip[clips // 2] == middle_indices(n, frames)


@given(LENGTHS, FRAMES, CLIPS)
def test_clips_are_the_same_every_time(n, frames, clips):
    assert middle_indices(n, frames, clips) == middle_indices(n, frames, clips)
    assert middle_indices(n, frames, 1) == middle_indices(n, frames)


@given(LENGTHS, FRAMES, st.integers(0, 2**32))
def test_training_takes_one_frame_of_each_segment(n, frames, seed):
    indices = train_indices(n, frames, np.random.default_rng(seed))
    length = n // frames
    if length:
        assert [i // length for i in indices] == list(range(frames))
    else:
        assert indices == [min(n - 1, round(i * n / frames)) for i in range(frames)]
    assert all(0 <= i < n for i in indices)


@given(LENGTHS, FRAMES, st.integers(0, 2**32))
def test_training_draws_the_same_for_the_same_seed(n, frames, seed):
    first, second = (train_indices(n, frames, np.random.default_rng(seed)) for _ in range(2))
    assert first == second


def test_training_reaches_every_frame_of_a_segment():
    rng = np.random.default_rng(0)
    drawn = {i for _ in range(200) for i in train_indices(20, 4, rng)}
    assert drawn == set(range(20))


@pytest.mark.parametrize("setting", [(0, 8, 1), (10, 0, 1), (10, 8, 0), (-1, 8, 1)])
def test_numbers_below_one_are_refused(setting):
    with pytest.raises(UsageError, match="at least 1"):
        middle_indices(*setting)
