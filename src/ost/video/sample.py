"""Sample frame indices and check crops: pure index arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ost.errors import UsageError, VideoError

if TYPE_CHECKING:
    import numpy as np

CROPS = (1, 3, 5, 10)
Part = tuple[float, float | None]  # [start, end) in seconds; None is the end of the video
ROUNDING = 1e-6  # tolerance in seconds: a time may lie this much before the instant it stands for
DIGITS = 4  # of reported times, after the point
# A reported time may lie half its last digit after its frame: a part that starts with it has the frame.
BORDER_ROUNDING = 0.5 * 10**-DIGITS + ROUNDING


def test_indices(n: int, frames: int, clips: int = 1) -> list[int]:
    """Return deterministic indices for recognition and evaluation, clip by clip.

    Clip k of C takes floor(i * a + a * (2k + 1) / 2C) with a = n / frames; for one clip this is
    floor(i * a + a / 2), the middle of each of `frames` equal segments (TSN, ECCV 2016). A video with
    fewer than `frames` frames repeats some.

    Args:
        n: number of frames of the video, at least 1.
        frames: T, frames a clip.
        clips: number of clips, evenly shifted within the segments.
    """
    _check(n, frames, clips)
    a = n / frames
    return [
        min(
            n - 1, math.floor(i * a + a * ((2 * k + 1) / (2 * clips)))
        )  # exactly a / 2 for the middle of odd C
        for k in range(clips)
        for i in range(frames)
    ]


def train_indices(n: int, frames: int, rng: np.random.Generator) -> list[int]:
    """Return random indices for training, one from each of `frames` segments of a = n // frames frames.

    With a = 0 (n < frames) the indices are round(i * n / frames), without randomness.
    """
    _check(n, frames, 1)
    a = n // frames
    if a == 0:
        return [min(n - 1, round(i * n / frames)) for i in range(frames)]
    return [i * a + int(offset) for i, offset in enumerate(rng.integers(a, size=frames))]


def check_part(name: str, part: Part) -> None:
    """Raise VideoError unless a part of a video starts at 0 or later and ends after its start."""
    try:
        start, end = part
        is_part = 0 <= start < (math.inf if end is None else end)
    except (TypeError, ValueError):
        raise UsageError("a part is (start, end) in seconds, where end may be None") from None
    if not is_part:
        raise VideoError(name, f"a part from {start:g} to {_end(end)} seconds is not one")


def indices_within(name: str, times: Sequence[float], part: Part) -> list[int]:
    """Return the indices of the frames whose times lie in a part.

    Raises:
        VideoError: there are none, or the frames have no times.
    """
    if any(map(math.isnan, times)):
        raise VideoError(name, "its frames have no times, by which a part of it could be taken")
    inside = [i for i, seconds in enumerate(times) if is_within(seconds, part)]
    if not inside:
        raise VideoError(name, nothing_within(part, times[-1] if times else 0.0))
    return inside


def is_within(seconds: float, part: Part) -> bool:
    """Return whether a frame at that time belongs to a part."""
    start, end = part
    return not is_before(seconds, start) and (end is None or is_before(seconds, end))


def is_before(seconds: float, border: float) -> bool:
    """Return whether a frame at that time lies before the border of a part, which may be its reported time."""
    return seconds < border - BORDER_ROUNDING


def reported(seconds: float) -> float:
    """Return a time as results show it."""
    return round(seconds, DIGITS)


def nothing_within(part: Part, last: float) -> str:
    """Return the error message for a part without frames, in a video whose last frame is at `last` seconds."""
    hint = f"; its last is at {last:g}" if last < part[0] else ""
    return f"it has no frame from {part[0]:g} to {_end(part[1])} seconds{hint}"


def _end(end: float | None) -> str:
    return "the end" if end is None else f"{end:g}"


def _check(n: int, frames: int, clips: int) -> None:
    for unit, value in (("a video", n), ("a clip", frames)):
        if value < 1:
            raise UsageError(f"{unit} needs at least 1 frame, got {value}")
    if clips < 1:
        raise UsageError(f"a video needs at least 1 clip, got {clips}")


def check_crops(crops: int) -> None:
    """Raise UsageError unless that number of crops is supported."""
    if crops not in CROPS:
        *others, last = map(str, CROPS)
        raise UsageError(f"views can have {', '.join(others)} or {last} crops, not {crops}")
