"""Which frames of a video are looked at, and in how many crops: index arithmetic, pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ost.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

CROPS = (1, 3, 5, 10)


def test_indices(n: int, frames: int, clips: int = 1) -> list[int]:
    """Deterministic indices for recognition and evaluation, clip by clip.

    Clip k of C takes floor(i * a + a * (2k + 1) / 2C) with a = n / frames; for one clip this is
    floor(i * a + a / 2), the middle of each of `frames` equal segments (TSN, ECCV 2016). A video with
    fewer frames than asked for repeats some.

    Args:
        n: number of frames of the video, at least 1.
        frames: T, frames a clip.
        clips: number of clips, evenly shifted within the segments.
    """
    _check(n, frames, clips)
    a = n / frames
    return [
        min(n - 1, math.floor(i * a + a * (2 * k + 1) / (2 * clips)))
        for k in range(clips)
        for i in range(frames)
    ]


def train_indices(n: int, frames: int, rng: np.random.Generator) -> list[int]:
    """Random indices for training, one from each of `frames` segments of a = n // frames frames.

    With a = 0 (n < frames) the indices are round(i * n / frames), without chance.
    """
    _check(n, frames, 1)
    a = n // frames
    if a == 0:
        return [min(n - 1, round(i * n / frames)) for i in range(frames)]
    return [i * a + int(offset) for i, offset in enumerate(rng.integers(a, size=frames))]


def _check(n: int, frames: int, clips: int) -> None:
    for what, value in (("a video", n), ("a clip", frames)):
        if value < 1:
            raise UsageError(f"{what} needs at least 1 frame, got {value}")
    if clips < 1:
        raise UsageError(f"a video needs at least 1 clip, got {clips}")


def check_crops(crops: int) -> None:
    """Raise UsageError unless views can have that many crops."""
    if crops not in CROPS:
        *others, last = map(str, CROPS)
        raise UsageError(f"views can have {', '.join(others)} or {last} crops, not {crops}")
