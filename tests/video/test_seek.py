"""Seeking in long files gives exactly what decoding from the start gives."""

import struct

import numpy as np
import pytest

from ost.video import decode as module
from ost.video.chunks import decode_chunks
from ost.video.decode import decode
from ost.video.sample import test_indices as middle_indices

from .makers import numbers, video

OPEN265 = {"x265-params": "log-level=none:open-gop=1:keyint=12:bframes=3"}
CLOSED265 = {"x265-params": "log-level=none:open-gop=0:keyint=12:bframes=3"}
QUICK = {"deadline": "realtime", "cpu-used": "8"}
LONG = {
    "closed.mp4": ({"bframes": 3}, True),
    "open.mp4": ({"bframes": 3, "options": {"x264-params": "open-gop=1:b-adapt=0"}}, True),
    "tiny_gops.mp4": ({"gop": 3, "bframes": 1}, True),
    "variable.mp4": ({"rate": 50, "ticks": [2 * i + (i % 3 == 0) for i in range(1100)]}, True),
    "late.mkv": ({"ticks": range(500, 1600)}, True),
    "open.ts": ({"bframes": 3, "options": {"x264-params": "open-gop=1:b-adapt=0"}}, True),
    "mpeg2.ts": ({"codec": "mpeg2video"}, True),
    "open_hevc.mp4": ({"codec": "libx265", "options": OPEN265}, True),
    "closed_hevc.mkv": ({"codec": "libx265", "options": CLOSED265}, True),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": QUICK}, True),
    "mpeg4.avi": ({"codec": "mpeg4"}, True),
    # No whole picture to start from, and no presentation times: seeking must notice that it went wrong.
    "refresh.mp4": ({"options": {"x264-params": "intra-refresh=1:keyint=12"}}, False),
    "h264.avi": ({}, False),
}


@pytest.mark.parametrize("name", LONG)
def test_seeking_equals_decoding_in_sequence(tmp_path, name, monkeypatch):
    options, can_seek = LONG[name]
    path = video(tmp_path / name, 1100, **options)
    found = []
    seek = module._Reader._seek

    def spy(self, index, wanted):
        found.append(seek(self, index, wanted))
        return found[-1]

    monkeypatch.setattr(module._Reader, "_seek", spy)
    sought = decode(path, frames=16)
    assert [bool(pictures) for pictures in found] == [can_seek]
    monkeypatch.setattr(module, "SEEK_FROM", 10**9)
    in_sequence = decode(path, frames=16)
    assert len(found) == 1
    assert np.array_equal(sought.pixels, in_sequence.pixels)
    assert sought.times == in_sequence.times and sought.decoded == in_sequence.decoded == 1100
    assert sought.notices == () and numbers(sought) == middle_indices(1100, 16)


def test_every_frame_near_a_keyframe_can_be_sought(tmp_path):
    path = video(tmp_path / "a.mp4", 1100, bframes=3, options={"x264-params": "open-gop=1:b-adapt=0"})
    for start in (0, 8, 9, 10, 11, 12, 13, 500, 1080):
        wanted = [start, start + 1, start + 2, start + 19]
        assert numbers(decode(path, pick=lambda n, wanted=wanted: wanted)) == wanted


def test_long_recording_cut_within_a_group_of_pictures_counts_from_its_first_keyframe(tmp_path, monkeypatch):
    path = video(tmp_path / "a.ts", 1200, gop=50)
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 3] + data[188 * (len(data) // 188 // 100) :])
    sought = decode(path, frames=16)
    monkeypatch.setattr(module, "SEEK_FROM", 10**9)
    in_sequence = decode(path, frames=16)
    assert numbers(sought) == numbers(in_sequence) and sought.decoded == in_sequence.decoded == 1150


def joined(folder, first, second):
    """Write one .flv file after another, as recorders do, where the second begins its times from the start."""
    path = folder / "joined.flv"
    path.write_bytes(first.read_bytes() + second.read_bytes()[13:])  # without the second header of the file
    return path


def at_a_rate(path, **settings):
    """The number and time of each frame, at 5 frames a second."""
    return [
        pair
        for chunk in decode_chunks(path, fps=5, **settings)
        for pair in zip(numbers(chunk.frames), chunk.frames.times, strict=True)
    ]


@pytest.mark.parametrize("second", [100, 250, 350])
@pytest.mark.parametrize("part", [(12.0, 13.0), (13.0, None), (2.0, 6.0), (5.0, 15.0)])
def test_a_part_of_joined_recordings_is_that_part_of_decoding_in_sequence(tmp_path, part, second):
    path = joined(tmp_path, video(tmp_path / "1.flv", 250), video(tmp_path / "2.flv", second, gop=20))
    start, end = part
    expected = [(n, t) for n, t in at_a_rate(path) if start <= t < (end or 100)]
    assert expected and at_a_rate(path, part=part) == expected


def test_a_part_that_seeking_misses_is_decoded_in_sequence(tmp_path):
    path = joined(tmp_path, video(tmp_path / "1.flv", 250), video(tmp_path / "2.flv", 250))
    data = path.read_bytes()
    at = data.index(b"duration\0") + 9
    path.write_bytes(data[:at] + struct.pack(">d", 20.0) + data[at + 8 :])
    assert [n for n, _ in at_a_rate(path, part=(12.0, 16.0))] == list(range(50, 150, 5))


def test_joined_recordings_whose_times_interleave_keep_the_order_of_their_frames(tmp_path):
    first, second = (
        video(tmp_path / f"{i}.flv", 600, rate=50, ticks=range(i, 1200, 2), bframes=0) for i in range(2)
    )
    path = joined(tmp_path, first, second)
    assert numbers(decode(path, frames=16)) == [i % 600 for i in middle_indices(1200, 16)]
    whole = at_a_rate(path)
    for start in (1.0, 5.0, 12.5, 23.0):
        part = (start, start + 2)
        assert at_a_rate(path, part=part) == [(n, t) for n, t in whole if start <= t < start + 2]
