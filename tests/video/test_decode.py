"""Which frames come out of which file, and when they are shown."""

import os

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from ost.errors import UsageError
from ost.video.decode import decode
from ost.video.sample import test_indices as middle_indices

from .makers import number, numbers, picture, video

X265 = {"x265-params": "log-level=none"}
OPEN265 = {"x265-params": "log-level=none:open-gop=1:keyint=12:bframes=3"}
OPEN264 = {"x264-params": "open-gop=1:b-adapt=0"}
QUICK = {"deadline": "realtime", "cpu-used": "8"}
HIDDEN = {"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "good", "cpu-used": "5"}
FORMATS = {
    "h264.mp4": {"bframes": 3},
    "h264_open.mp4": {"bframes": 3, "options": OPEN264},
    "h264_fragments.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_10bit.mp4": {"pix_fmt": "yuv422p10le"},
    "h264_444_odd.mp4": {"pix_fmt": "yuv444p", "size": (175, 131)},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "hevc_10bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": X265},
    "hevc_open.mkv": {"codec": "libx265", "options": OPEN265},
    "av1.mp4": {"codec": "libsvtav1", "size": (128, 96), "options": {"preset": "10", "crf": "15"}},
    "h264.mkv": {"bframes": 3},
    "ffv1.mkv": {"codec": "ffv1"},
    "vp8.webm": {"codec": "libvpx", "options": QUICK},
    "vp8_odd.webm": {"codec": "libvpx", "options": QUICK, "size": (175, 131)},
    "vp8_hidden.webm": {"codec": "libvpx", "options": HIDDEN},
    "vp9.webm": {"codec": "libvpx-vp9", "options": QUICK},
    "vp9_hidden.webm": {"codec": "libvpx-vp9", "options": HIDDEN},
    "vp9_alpha.webm": {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "options": QUICK},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_odd.avi": {"codec": "mpeg4", "size": (175, 131)},
    "h264.avi": {},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264.ts": {},
    "hevc.ts": {"codec": "libx265", "options": X265},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "mpeg2.mpg": {"codec": "mpeg2video", "container": "vob"},
    "mpeg1.mpg": {"codec": "mpeg1video", "container": "mpeg"},
    "raw.h264": {},
    "raw.m2v": {"codec": "mpeg2video"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8", "rate": 20},
    "apng.apng": {"codec": "apng", "pix_fmt": "rgb24"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "qtrle_alpha.mov": {"codec": "qtrle", "pix_fmt": "argb"},
    "png_alpha.mov": {"codec": "png", "pix_fmt": "rgba"},
    "flv1.flv": {"codec": "flv1"},
    "wmv2.wmv": {"codec": "wmv2"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_frames_asked_for_at_their_times(tmp_path, name):
    path = video(tmp_path / name, 40, **FORMATS[name])
    rate = FORMATS[name].get("rate", 25)
    frames = decode(path, frames=16)
    assert numbers(frames) == middle_indices(40, 16)
    assert frames.times == pytest.approx([i / rate for i in middle_indices(40, 16)], abs=1e-3)
    assert frames.decoded == 40 and frames.notices == ()
    width, height = FORMATS[name].get("size", (64, 48))
    assert frames.pixels.shape == (16, height, width, 3)


def test_short_video_repeats_frames(tmp_path):
    frames = decode(video(tmp_path / "short.mp4", 3), frames=8)
    assert numbers(frames) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_clips_come_one_after_the_other(tmp_path):
    frames = decode(video(tmp_path / "a.mp4", 40), frames=8, clips=3)
    assert frames.clips == 3 and numbers(frames) == middle_indices(40, 8, 3)


def test_pick_is_told_the_number_of_frames(tmp_path):
    asked = []

    def last_two(n):
        asked.append(n)
        return [n - 2, n - 1]

    assert numbers(decode(video(tmp_path / "a.mkv", 33), pick=last_two)) == [31, 32]
    assert set(asked) == {33}


def test_variable_frame_rate_keeps_its_times(tmp_path):
    ticks = [0, 1, 2, 3, 50, 51, 52, 99, 100, 200]
    for name in ("a.mp4", "a.mkv"):
        frames = decode(video(tmp_path / name, 10, rate=50, ticks=ticks), frames=10)
        assert numbers(frames) == list(range(10))
        assert frames.times == pytest.approx([tick / 50 for tick in ticks], abs=1e-3)


def test_a_film_that_starts_late_starts_at_zero(tmp_path):
    path = video(tmp_path / "late.ts", 20, ticks=range(1000, 1020))
    assert decode(path, frames=20).times == pytest.approx([i / 25 for i in range(20)])


def test_wrong_frame_count_in_the_header_is_not_believed(tmp_path):
    path = video(tmp_path / "a.avi", 40, codec="mpeg4")
    data = path.read_bytes()
    count = (40).to_bytes(4, "little")
    at_main, at_stream = data.index(b"avih") + 24, data.index(b"strh") + 40
    assert data[at_main : at_main + 4] == data[at_stream : at_stream + 4] == count
    for claimed in (0, 7, 100_000):
        wrong = claimed.to_bytes(4, "little")
        lying = data[:at_main] + wrong + data[at_main + 4 : at_stream] + wrong + data[at_stream + 4 :]
        path.write_bytes(lying)
        frames = decode(path, frames=16)
        assert numbers(frames) == middle_indices(40, 16) and frames.notices == ()


@pytest.mark.parametrize("name", ["tagged.mp4", "tagged.mkv", "tagged.avi"])
def test_a_tag_in_another_encoding_than_utf8_does_no_harm(tmp_path, name):
    path = video(tmp_path / name, 8, title="a title in ASCII")
    data = path.read_bytes()
    assert b"a title in ASCII" in data
    path.write_bytes(data.replace(b"a title in ASCII", "заглавие, cp1251".encode("cp1251")))
    assert numbers(decode(path, frames=8)) == list(range(8))


def test_film_beside_a_cover_picture_is_the_one_decoded(tmp_path):
    film = video(tmp_path / "film.mkv", 20)
    with av.open(str(film)) as source, av.open(str(tmp_path / "both.mp4"), "w") as output:
        cover = output.add_stream("mjpeg", options={})
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = output.add_stream_from_template(source.streams.video[0])
        frame = av.VideoFrame.from_ndarray(picture(4000), format="rgb24")
        output.mux([*cover.encode(frame), *cover.encode()])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    assert numbers(decode(tmp_path / "both.mp4", frames=10)) == middle_indices(20, 10)


def test_size_change_midway_is_stretched_to_the_first_size(tmp_path):
    for name in ("a.ts", "b.ts"):
        video(tmp_path / name, 20, size=(64, 48) if name == "a.ts" else (128, 64))
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    frames = decode(both, frames=40)
    assert frames.pixels.shape == (40, 48, 64, 3)
    assert numbers(frames) == [*range(20), *range(20)]
    assert any("changes its size" in notice for notice in frames.notices)


def test_streams_that_appear_midway_are_no_trouble(tmp_path):
    film = video(tmp_path / "a.ts", 20).read_bytes()
    for i in range(40):
        late = video(
            tmp_path / "b.ts", 2, muxer={"mpegts_start_pid": str(600 + i), "mpegts_service_id": str(2 + i)}
        )
        film += late.read_bytes()
    (tmp_path / "a.ts").write_bytes(film)
    frames = decode(tmp_path / "a.ts", frames=20)
    assert numbers(frames) == list(range(20))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_an_image_is_a_video_of_one_frame(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(77)).save(path)
    assert numbers(decode(path, frames=4)) == [77] * 4


@pytest.mark.parametrize("name", ["a b.mp4", "50%d.mp4", "a:b?c#d.mp4", "-x.mp4", "ü漢.mp4", b"\xff.mp4"])
def test_odd_names_are_just_names(tmp_path, name, monkeypatch):
    path = video(tmp_path / "plain.mp4", 5).rename(tmp_path / os.fsdecode(name))
    monkeypatch.chdir(tmp_path)
    assert number(decode(path.name, frames=5).pixels[0]) == 0


def test_keyframes_are_the_ones_at_or_before_the_wanted_times(tmp_path):
    for name, options in {"a.mp4": {}, "a.mkv": {}, "a.ts": {}, "a.mpg": {"codec": "mpeg2video"}}.items():
        path = video(tmp_path / name, 400, gop=10, container="vob" if name == "a.mpg" else None, **options)
        frames = decode(path, frames=8, sampling="keyframes")
        assert frames.notices == ()
        for shown, wanted, seconds in zip(numbers(frames), middle_indices(400, 8), frames.times, strict=True):
            assert wanted - 12 <= shown <= wanted
            assert seconds == pytest.approx(shown / 25, abs=0.02)


def test_keyframes_say_when_they_are_few_and_give_way_when_there_is_one(tmp_path):
    few = decode(video(tmp_path / "few.mp4", 40, gop=20), frames=16, sampling="keyframes")
    assert set(numbers(few)) == {0, 20} and "only 2 different keyframes" in few.notices[0]
    one = decode(video(tmp_path / "one.mp4", 40, gop=100), frames=16, sampling="keyframes")
    assert numbers(one) == middle_indices(40, 16) and "uniformly" in one.notices[-1]


def test_frames_know_where_they_come_from(tmp_path):
    path = video(tmp_path / "a.mp4", 10)
    frames = decode(str(path), frames=4)
    assert frames.path == str(path) and frames.seconds > 0 and frames.pixels.dtype == np.uint8


@pytest.mark.parametrize(
    "setting", [{"sampling": "often"}, {"min_decoded": 1.5}, {"min_decoded": -1}, {"frames": 0}]
)
def test_settings_out_of_range_are_refused(tmp_path, setting):
    with pytest.raises(UsageError):
        decode(video(tmp_path / "a.mp4", 5), **setting)
