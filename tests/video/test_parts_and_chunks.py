"""Parts of videos in seconds, and frames at an even rate in chunks: the frames that decoding everything would give."""

import itertools
import math
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ost.errors import UsageError, VideoError
from ost.recognition.settings import FrameRate
from ost.types import Preprocess
from ost.video import chunks as module
from ost.video.chunks import Instants, decode_chunks
from ost.video.container import Cancelled
from ost.video.decode import decode
from ost.video.sample import test_indices as middle_indices

from .makers import numbers, picture, video
from .test_seek import LONG

SMALL = Preprocess(24, 24, "bilinear", True, (0.5,) * 3, (0.5,) * 3)


def joined(found):
    """The numbers and times of all chunks."""
    found = list(found)
    return [n for c in found for n in numbers(c.frames)], [t for c in found for t in c.frames.times]


# Parts.


@pytest.mark.parametrize("name", LONG)
def test_a_part_has_the_middle_frames_of_its_own_length(tmp_path, name):
    options, _ = LONG[name]
    path = video(tmp_path / name, 1100, **options)
    whole = decode(path, pick=lambda n: list(range(n)))
    times = dict(zip(numbers(whole), whole.times, strict=True))
    start, end = whole.times[300], whole.times[700]
    part = decode(path, frames=8, part=(start, end))
    assert numbers(part) == [300 + i for i in middle_indices(400, 8)]
    assert part.times == tuple(times[i] for i in numbers(part))
    assert numbers(decode(path, frames=4, part=(whole.times[-1], None))) == [1099] * 4


def test_a_part_of_keyframes_lies_in_the_part(tmp_path):
    path = video(tmp_path / "a.mp4", 1100, gop=10)
    found = decode(path, frames=4, sampling="keyframes", part=(10.0, 20.0))
    assert len(set(numbers(found))) == 4 and all(250 <= i < 500 for i in numbers(found))


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        ((5.0, 3.0), "a part from 5 to 3 seconds is not one"),
        ((-1.0, 3.0), "a part from -1 to 3 seconds is not one"),
        ((math.nan, None), "a part from nan to the end seconds is not one"),
        ((90.0, None), "it has no frame from 90 to the end seconds; its last is at 1.56"),
        ((1e15, None), "it has no frame from 1e+15 to the end seconds; its last is at 1.56"),
        ((1e300, 2e300), "it has no frame from 1e+300 to 2e+300 seconds; its last is at 1.56"),
        ((1.001, 1.002), "it has no frame from 1.001 to 1.002 seconds"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv", "a.ts"])
def test_a_part_that_is_not_there_is_one_sentence(tmp_path, name, part, cause):
    path = video(tmp_path / name)
    for refused in (
        lambda: decode(path, part=part),
        lambda: decode(path, part=part, sampling="keyframes"),
        lambda: list(decode_chunks(path, fps=25, part=part)),
    ):
        with pytest.raises(VideoError) as error:
            refused()
        assert error.value.cause == cause


def test_a_folder_of_frames_has_no_parts_and_no_rate(tmp_path):
    from PIL import Image

    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    with pytest.raises(VideoError, match="have no times"):
        decode(tmp_path, part=(0.0, 1.0))
    with pytest.raises(VideoError, match="have no times"):
        next(decode_chunks(tmp_path))


# Frames at an even rate.


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.sampled_from([0.5, 1, 4, 7, 12.5, 30]))
def test_a_frame_is_taken_if_it_is_the_first_at_or_after_an_instant(gaps, fps):
    times = [0.0, *(total / 100 for total in itertools.accumulate(gaps))]
    instants = Instants(fps)
    taken = [t for t in times if instants.reached(t)]
    expected = {
        next(t for t in times if t >= k / fps - 1e-6) for k in range(math.floor((times[-1] + 1e-6) * fps) + 1)
    }
    assert taken == sorted(expected)


@pytest.mark.parametrize("name", [*LONG])
def test_chunks_are_the_frames_of_the_whole_at_a_rate(tmp_path, name):
    options, _ = LONG[name]
    path = video(tmp_path / name, 1100, **options)
    whole = decode(path, pick=lambda n: list(range(n)))
    instants = Instants(4)
    expected = [(n, t) for n, t in zip(numbers(whole), whole.times, strict=True) if instants.reached(t)]
    found = list(decode_chunks(path, fps=4, chunk_frames=50))
    assert list(zip(*joined(found), strict=True)) == expected
    assert [len(c.frames.times) for c in found[:-1]] == [50] * (len(found) - 1)
    assert [c.last for c in found] == [False] * (len(found) - 1) + [True]
    assert all(c.frames.notices == () for c in found)
    rest = list(decode_chunks(path, fps=4, chunk_frames=50, skip=2))
    assert joined(rest) == joined(found[2:])
    part = joined(decode_chunks(path, fps=4, part=(whole.times[500], whole.times[900])))
    assert list(zip(*part, strict=True)) == [
        pair for pair in expected if whole.times[500] <= pair[1] < whole.times[900]
    ]


def test_a_part_is_sought_and_not_decoded_from_the_beginning(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4", 3000, gop=12)
    seen, demuxed = [], module.demuxed
    monkeypatch.setattr(module, "demuxed", lambda *a: (seen.append(p.pts) or p for p in demuxed(*a)))
    found = list(decode_chunks(path, fps=5, part=(100.0, 102.0)))
    assert joined(found)[0] == list(range(2500, 2550, 5))
    assert len(seen) < 150


def test_memory_does_not_grow_with_the_length(tmp_path):
    peaks = []
    for count in (300, 3000):
        path = video(tmp_path / f"{count}.mp4", count)
        tracemalloc.start()
        for _ in decode_chunks(path, fps=25, chunk_frames=20, preprocess=SMALL):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_file_that_breaks_off_gives_what_it_has_and_a_notice(tmp_path):
    path = video(tmp_path / "a.mkv", 1000)
    whole = list(decode_chunks(path, fps=25, chunk_frames=100))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = list(decode_chunks(path, fps=25, chunk_frames=100))
    assert 1 < len(found) < len(whole)
    kept = joined(found)[0]
    assert kept == sorted(kept) and len(kept) >= 0.99 * kept[-1]
    assert "its header gives 40.0 s" in found[-1].frames.notices[0]


def test_times_that_fall_back_go_on_at_the_frame_rate(tmp_path):
    first, second = (video(tmp_path / f"{i}.ts", 100, bframes=0).read_bytes() for i in range(2))
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    found, times = joined(decode_chunks(path, fps=25, chunk_frames=64))
    assert found == [*range(100), *range(100)]
    assert times == sorted(times) and times[-1] == pytest.approx(199 / 25, abs=0.2)


def test_a_decoder_of_chunks_gives_up_when_it_is_asked_to(tmp_path):
    path, asked = video(tmp_path / "a.mp4", 300), threading.Event()
    found = decode_chunks(path, fps=25, chunk_frames=10, stop=asked.is_set)
    next(found)
    asked.set()
    with pytest.raises(Cancelled):
        list(found)


@pytest.mark.parametrize(("fps", "frames"), [(0, 1), (math.inf, 1), (math.nan, 1), (4, 0)])
def test_a_rate_that_cannot_be_meant_is_refused(fps, frames):
    with pytest.raises(UsageError, match="fps must be positive"):
        FrameRate(fps, frames)


# Where seeking would mislead, and where times do not lie on instants.

MISLEADING = {
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "mpeg4.ts": {"codec": "mpeg4", "bframes": 0},
    "mpeg4_b.ts": {"codec": "mpeg4", "bframes": 2},
    "ntsc.mp4": {"rate": 30000, "ticks": [1001 * i for i in range(400)]},
}


@pytest.mark.parametrize("name", MISLEADING)
def test_a_part_at_a_rate_is_that_part_of_the_whole(tmp_path, name):
    path = video(tmp_path / name, 400, **MISLEADING[name])
    random = np.random.default_rng(0)
    for fps in (4, 10, 25):
        whole = list(zip(*joined(decode_chunks(path, fps=fps)), strict=True))
        for start in random.uniform(0, 12, 8):
            part = (float(start), float(start) + 1.3)
            found = list(zip(*joined(decode_chunks(path, fps=fps, part=part)), strict=True))
            assert found == [pair for pair in whole if part[0] <= pair[1] < part[1]]


def test_parts_side_by_side_share_no_frame(tmp_path):
    path = video(tmp_path / "a.mp4", 40, rate=10)
    border = 0.1 + 0.2  # a little more than 0.3
    before, after = (joined(decode_chunks(path, fps=10, part=p))[0] for p in ((0, border), (border, 1)))
    assert before == [0, 1, 2] and after == list(range(3, 10))
    assert numbers(decode(path, frames=3, part=(0, border))) == [0, 1, 2]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_part_may_start_and_end_at_any_time_that_was_reported(tmp_path, name):
    path = video(tmp_path / name, 60, rate=30)
    whole = decode(path, pick=lambda n: list(range(n)))
    for i in range(0, 59, 7):
        part = (whole.times[i], whole.times[i + 1])
        assert numbers(decode(path, frames=1, part=part)) == [i]
        assert joined(decode_chunks(path, fps=1000, part=part))[0] == [i]
        assert joined(decode_chunks(path, fps=1000, part=(part[0], None)))[0] == list(range(i, 60))


def test_keyframes_of_a_part_lie_within_it_and_within_the_file(tmp_path):
    path = video(tmp_path / "a.mp4", 1100, gop=250, bframes=0)  # one in 10 seconds
    found = decode(path, frames=4, sampling="keyframes", part=(12.0, 35.0))
    assert all(12 <= seconds < 35 for seconds in found.times) and len(set(found.times)) == 3
    late = decode(path, frames=8, sampling="keyframes", part=(0.0, 1000.0))
    assert len(set(late.times)) >= 7, "spread over the file, and not over what was asked for"
    with pytest.raises(VideoError, match="it has no frame from 90 to the end"):
        decode(path, frames=1, sampling="keyframes", part=(90.0, None))
    few = decode(path, frames=4, sampling="keyframes", part=(11.0, 13.0))
    assert few.notices == ("no two keyframes of the part could be sought, so it was sampled uniformly",)
    assert all(11 <= seconds < 13 for seconds in few.times)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
@pytest.mark.parametrize(("fps", "step"), [(30, 1), (15, 2), (10, 3)])
def test_no_frame_is_lost_where_times_are_whole_milliseconds(tmp_path, name, fps, step):
    path = video(tmp_path / name, 120, rate=30)
    assert joined(decode_chunks(path, fps=fps))[0] == list(range(0, 120, step))
