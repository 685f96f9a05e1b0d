"""Live sources: what is pushed comes in chunks at the reader's rate; what is dropped is counted and said."""

import math
import threading

import numpy as np
import pytest

from ost.errors import UsageError
from ost.video.live import LiveFrames

from .makers import number, numbers, picture


def pushed(live, count, rate=8, first=0):
    return [live.push(picture(i), i / rate) for i in range(first, first + count)]


def reading(live, fps=8.0, frames=4):
    return live.chunks(fps, frames, None, lambda: False)


def test_what_is_pushed_comes_in_order_in_chunks_of_what_waits():
    live = LiveFrames("camera")
    assert all(pushed(live, 6))
    live.close()
    found = list(reading(live))
    assert [numbers(c.frames) for c in found] == [[0, 1, 2, 3], [4, 5]]
    assert found[1].frames.times == (0.5, 0.625) and found[0].frames.path == "camera"
    assert live.push(picture(7)) is False, "nobody reads any more"


@pytest.mark.parametrize(
    ("drop", "kept", "accepted"),
    [("oldest", [3, 4, 5], [True] * 6), ("newest", [0, 1, 2], [True] * 3 + [False] * 3)],
)
def test_where_there_is_no_room_a_frame_is_dropped_and_counted(drop, kept, accepted):
    live = LiveFrames("camera", capacity=3, drop=drop)
    assert pushed(live, 6) == accepted
    live.close()
    (chunk,) = reading(live)
    assert numbers(chunk.frames) == kept
    assert live.dropped == 3
    assert chunk.frames.notices == ("3 frames were dropped before reading began",)


def test_frames_that_were_dropped_before_reading_are_told_from_those_of_busy_towers():
    live = LiveFrames("camera", capacity=2)
    pushed(live, 5)
    chunks = reading(live)
    assert next(chunks).frames.notices == ("3 frames were dropped before reading began",)
    pushed(live, 6, first=5)
    assert next(chunks).frames.notices == ("4 frames were dropped, as the towers were busy",)
    pushed(live, 1, first=11)
    assert next(chunks).frames.notices == ()
    assert live.dropped == 7


def test_without_dropping_a_push_waits_for_room():
    live = LiveFrames("camera", capacity=2, drop="none")
    thread = threading.Thread(target=lambda: (pushed(live, 9), live.close()))
    thread.start()
    found = [n for c in reading(live) for n in numbers(c.frames)]
    thread.join(10)
    assert found == list(range(9)) and live.dropped == 0


def test_frames_beyond_the_readers_rate_are_not_kept():
    live, found = LiveFrames("camera"), []
    chunks = reading(live, fps=2.0, frames=1)
    thread = threading.Thread(target=lambda: found.extend(number(c.frames.pixels[0]) for c in chunks))
    thread.start()
    while live._instants is None:
        pass
    assert sum(pushed(live, 16)) == 4
    live.close()
    thread.join(10)
    assert found == [0, 4, 8, 12]


def test_a_reader_that_leaves_frees_whoever_waits_to_push():
    live = LiveFrames("camera", capacity=1, drop="none")
    thread = threading.Thread(target=pushed, args=(live, 9))
    thread.start()
    chunks = reading(live)
    next(chunks)
    chunks.close()
    thread.join(5)
    assert not thread.is_alive()


def test_what_is_no_picture_is_refused_where_it_is_pushed():
    with pytest.raises(UsageError, match=r"uint8 \[H, W, 3\], not float64 \[2, 2\]"):
        LiveFrames("camera").push(np.zeros((2, 2)))
    with pytest.raises(UsageError, match="drop is oldest, newest, none, not 'odd'"):
        LiveFrames("camera", drop="odd")
    with pytest.raises(UsageError, match="at least 1 frame"):
        LiveFrames("camera", capacity=0)


def test_a_clock_that_falls_back_begins_again_and_is_said():
    live = LiveFrames("camera")
    chunks = reading(live, fps=8.0, frames=20)
    pushed(live, 6)
    assert numbers(next(chunks).frames) == list(range(6))
    assert all(pushed(live, 6)), "from 0 again"
    live.close()
    (chunk,) = chunks
    assert numbers(chunk.frames) == list(range(6))
    assert chunk.frames.notices == ("the clock of the source fell back",)


def test_a_clock_that_falls_back_before_reading_loses_no_frame():
    live = LiveFrames("camera")
    assert all([*pushed(live, 6), *pushed(live, 6)])
    live.close()
    (chunk,) = reading(live, fps=4.0, frames=20)
    assert numbers(chunk.frames) == [0, 2, 4, 0, 2, 4]
    assert chunk.frames.notices == ("the clock of the source fell back",)


def test_what_was_pushed_before_the_rate_was_known_is_thinned():
    live = LiveFrames("camera")
    assert all(pushed(live, 32, rate=16))
    live.close()
    (chunk,) = reading(live, fps=2.0, frames=100)
    assert numbers(chunk.frames) == [0, 8, 16, 24]


def test_a_source_whose_pictures_change_their_size_says_so():
    live = LiveFrames("camera")
    live.push(picture(0), 0.0)
    live.push(picture(1, (32, 48)), 1.0)
    live.close()
    (chunk,) = reading(live)
    assert chunk.frames.pixels.shape == (2, 48, 64, 3) and "changes its size" in chunk.frames.notices[0]


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_a_time_that_is_no_number_is_refused(seconds):
    with pytest.raises(UsageError, match="the time of a frame is in seconds"):
        LiveFrames("camera").push(picture(0), seconds)
