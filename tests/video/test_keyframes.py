"""Sampling of keyframes where headers state a wrong length and containers date frames oddly."""

import struct

import pytest

from ost.video.decode import decode

from .makers import numbers, video


def with_length(path, seconds):
    """Write another duration into the header of a .flv or .mkv file."""
    data = path.read_bytes()
    mark, factor = {".flv": (b"duration\0", 1), ".mkv": (b"\x44\x89\x88", 1000)}[path.suffix]
    at = data.index(mark) + len(mark)
    path.write_bytes(data[:at] + struct.pack(">d", factor * seconds) + data[at + 8 :])
    return path


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *[("a.mkv", part) for part in (None, (5.0, 15.0), (12.0, 16.0), (6.0, None), (12.0, 1000.0))],
        *[("a.flv", part) for part in ((5.0, 15.0), (12.0, 16.0))],
    ],
)
def test_keyframes_lie_in_all_of_a_part_whose_header_is_too_short(tmp_path, name, part):
    path = video(tmp_path / name, 500, gop=12)
    expected = decode(path, frames=4, sampling="keyframes", part=part)
    sampled = decode(with_length(path, 8.0), frames=4, sampling="keyframes", part=part)
    start, end = part or (0, None)
    assert all(start <= seconds < (end or 20) for seconds in sampled.times) and sampled.notices == ()
    assert all(abs(a - b) <= 0.5 for a, b in zip(sampled.times, expected.times, strict=True))


def test_a_part_after_a_header_that_is_too_short_is_sampled_uniformly_where_seeking_cannot_tell(tmp_path):
    path = with_length(video(tmp_path / "a.flv", 500, gop=12), 8.0)
    sampled = decode(path, frames=4, sampling="keyframes", part=(12.0, None))
    assert numbers(sampled) == numbers(decode(path, frames=4, part=(12.0, None)))
    assert "sampled uniformly" in sampled.notices[0]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("bframes", [0, 1, 2, 3])
def test_keyframes_of_avi_have_the_times_of_those_frames(tmp_path, codec, bframes):
    path = video(tmp_path / "a.avi", 120, codec=codec, gop=10, bframes=bframes)
    sampled = decode(path, frames=6, sampling="keyframes")
    assert len(set(sampled.times)) == 6
    assert sampled.times == tuple(number / 25 for number in numbers(sampled))
