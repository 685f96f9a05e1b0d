"""Whatever is wrong with a video ends in one sentence with its path and the cause, or in a notice."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ost.errors import VideoError
from ost.types import Preprocess
from ost.video.decode import decode
from ost.video.picture import check_size

from .makers import audio, numbers, picture, video

PREPROCESS = Preprocess(24, 24, "bilinear", True, (0.5,) * 3, (0.5,) * 3)
CONTAINERS = {
    "a.mp4": {},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx"},
    "a.avi": {"codec": "mpeg4"},
    "a.ts": {},
}


def refusal(path, **settings):
    """The cause of the `VideoError` that decoding ends in."""
    with pytest.raises(VideoError) as caught:
        decode(path, **settings)
    sentence, cause = str(caught.value), caught.value.cause
    assert str(path) in sentence or repr(str(path)) in sentence
    assert cause and cause in sentence and "\n" not in sentence and len(cause) < 200
    return cause


def frames_or_refusal(path, **settings):
    try:
        frames = decode(path, frames=4, preprocess=PREPROCESS, **settings)
    except VideoError:
        return refusal(path, frames=4, preprocess=PREPROCESS, **settings)
    assert frames.pixels.shape[0] == 4 and frames.pixels.dtype == np.uint8
    return frames


def test_missing_file_is_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "nowhere.mp4")


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert "empty" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.nfo", "a.bin", "a.avi", "a.png"])
@pytest.mark.parametrize("text", ["Dear diary,\n" * 200, "x", "\x1b[31mred\x1b[0m\r\n" * 200])
def test_text_is_not_a_video(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    refusal(tmp_path / name)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "ffconcat version 1.0\nfile 'http://127.0.0.1:9/{}'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
        '<Representation id="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ts"])
def test_playlists_are_not_followed(tmp_path, name, playlist):
    video(tmp_path / "secret.ts", 10)
    (tmp_path / name).write_text(playlist.format("secret.ts"))
    for sampling in ("uniform", "keyframes"):
        refusal(tmp_path / name, sampling=sampling)


def test_pattern_names_do_not_stand_for_other_files(tmp_path):
    for i in range(3):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "%d.png").write_bytes((tmp_path / "1.png").read_bytes())
    (tmp_path / "*.png").write_bytes((tmp_path / "1.png").read_bytes())
    for name in ("%d.png", "*.png"):
        found = frames_or_refusal(tmp_path / name)
        assert isinstance(found, str) or set(numbers(found)) == {1}


def test_sound_alone_is_not_a_video(tmp_path):
    assert "no video stream" in refusal(audio(tmp_path / "a.m4a"))


def test_container_without_frames_is_refused(tmp_path):
    path = video(tmp_path / "a.avi", 10, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    assert "no frame" in refusal(path)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_no_permission_is_said(tmp_path, monkeypatch, what):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.mp4").write_bytes(b"x")
    path = tmp_path / "a.mp4" if what == "file" else tmp_path
    monkeypatch.setattr(Path, "open" if what == "file" else "iterdir", refuse)
    assert "permission" in refusal(path)


@pytest.mark.parametrize("locked", ["a.mp4", "."])
def test_unreadable_file_is_refused(unprivileged, locked):
    folder, drop = unprivileged
    path = video(folder / "a.mp4", 5)
    (folder / locked).chmod(0)
    drop()
    assert "permission" in refusal(path)


def test_nul_in_a_name_is_refused():
    assert "not a file name" in refusal("a\0b.mp4")


def test_endless_name_is_refused():
    refusal("x" * 5000 + ".mp4")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    assert "neither a file nor a folder" in refusal(tmp_path / "a.mp4")


def test_8k_fits_the_limit_and_more_does_not():
    check_size("a.mp4", 7680, 4320)
    for width, height in [(10_000, 10_000), (0, 10), (4000, 100)]:
        with pytest.raises(VideoError, match=f"{width} x {height}"):
            check_size("a.mp4", width, height)


def test_absurdly_long_pictures_are_refused(tmp_path):
    path = video(tmp_path / "a.avi", codec="ffv1", size=(2000, 16), pictures=[picture(0, (2000, 16))])
    assert "2000 x 16" in refusal(path, preprocess=PREPROCESS)


@pytest.mark.parametrize("name", CONTAINERS)
def test_any_truncation_ends_in_frames_or_one_sentence(tmp_path, name):
    data = video(tmp_path / name, 30, **CONTAINERS[name]).read_bytes()
    cuts = {1, 2, 7, 8, 9, 100, len(data) - 1, *range(0, len(data), max(1, len(data) // 30))} - {0}
    for cut in sorted(cuts):
        (tmp_path / name).write_bytes(data[:cut])
        for sampling in ("uniform", "keyframes"):
            frames_or_refusal(tmp_path / name, sampling=sampling)


@pytest.mark.parametrize("name", CONTAINERS)
def test_any_flipped_bits_end_in_frames_or_one_sentence(tmp_path, name):
    data = video(tmp_path / name, 30, **CONTAINERS[name]).read_bytes()
    rng = np.random.default_rng(0)
    for flips in [1, 4, 16, 64] * 8:
        broken = np.frombuffer(data, np.uint8).copy()
        where = rng.integers(len(data) if flips % 3 else 600, size=flips)
        broken[where] ^= 1 << rng.integers(8, size=flips, dtype=np.uint8)
        (tmp_path / name).write_bytes(broken.tobytes())
        frames_or_refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_broken_off_file_is_used_or_refused_by_its_share(tmp_path, name):
    muxer = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = video(tmp_path / name, 100, codec="mpeg4", size=(320, 240), bframes=0, gop=1, muxer=muxer)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    frames = decode(path, frames=8)
    assert 50 < frames.decoded < 80
    assert frames.notices == (f"{frames.decoded} of 100 frames could be decoded",)
    assert numbers(frames)[-1] < frames.decoded
    assert f"only {frames.decoded} of 100" in refusal(path, min_decoded=0.9)
    path.write_bytes(data[: len(data) * 3 // 10])
    assert "of 100 frames" in refusal(path)
    assert decode(path, frames=8, min_decoded=0).decoded < 50


def test_broken_packets_are_left_out_and_counted(tmp_path):
    path = video(tmp_path / "a.avi", 100, codec="ffv1", gop=1)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for at, size in packets[:30]:
        data[at + 16 : at + size] = bytes(size - 16)
    path.write_bytes(data)
    frames = decode(path, frames=8)
    assert frames.decoded == 70 and "70 of 100" in frames.notices[0]
    assert min(numbers(frames)) >= 30
    assert "only 70 of 100" in refusal(path, min_decoded=0.8)


def test_keyframes_missing_from_a_broken_off_file_are_counted(tmp_path):
    path = video(tmp_path / "a.mp4", 400, gop=5, muxer={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    frames = decode(path, frames=10, sampling="keyframes")
    assert len(frames.pixels) == 10 and "of 10 keyframes decode" in frames.notices[0]
    assert "keyframes" in refusal(path, frames=10, sampling="keyframes", min_decoded=0.95)


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no pictures")
    assert "no frame images" in refusal(tmp_path)


def test_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for i in (0, 1, 2, 9, 10, 11, 100):
        Image.fromarray(picture(i)).save(tmp_path / f"frame_{i}.png")
    (tmp_path / ".hidden.png").write_text("x")
    frames = decode(tmp_path, frames=7)
    assert numbers(frames) == [0, 1, 2, 9, 10, 11, 100] and np.isnan(frames.times).all()


def test_folder_names_with_odd_digits_are_no_trouble(tmp_path):
    for name in ("²1.png", "1².png", "01.png", "1.png", "x.png"):
        Image.fromarray(picture(1)).save(tmp_path / name)
    assert decode(tmp_path, frames=5).decoded == 5


def test_broken_images_of_a_folder_are_left_out_and_counted(tmp_path):
    for i in range(10):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    for i in (0, 1, 4):
        (tmp_path / f"{i}.png").write_bytes((tmp_path / f"{i}.png").read_bytes()[: 20 * i])
    frames = decode(tmp_path, frames=7)
    assert numbers(frames) == [2, 3, 5, 6, 7, 8, 9] and frames.notices == (
        "7 of 10 frame images can be read",
    )
    assert "only 7 of 10" in refusal(tmp_path, frames=7, min_decoded=0.8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "ppm"])
def test_any_damage_to_images_ends_in_frames_or_one_sentence(tmp_path, suffix):
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / f"{i}.{suffix}"
        Image.fromarray(picture(i)).save(path)
        data = bytearray(path.read_bytes())
        for at in rng.integers(min(len(data), 200), size=i % 6):
            data[at] ^= 1 << rng.integers(8)
        path.write_bytes(data[: len(data) - 5 * (i % 4)])
        frames_or_refusal(path)
    frames_or_refusal(tmp_path, min_decoded=0)
