"""A disk or mount that fails while a file is read: the frames so far, and a notice that some may be missing."""

import errno
import itertools

import pytest
from av.error import FFmpegError
from PIL import Image

from ost.errors import VideoError
from ost.video import chunks, container
from ost.video import decode as whole
from ost.video.chunks import decode_chunks
from ost.video.container import READ_FAILED
from ost.video.decode import decode

from .makers import numbers, video


@pytest.fixture
def fails_with(monkeypatch):
    """Let reading packets fail with an error after some packets."""
    demuxed = container.demuxed

    def fail(name, after=200):
        def broken(*arguments):
            yield from itertools.islice(demuxed(*arguments), after)
            raise FFmpegError(getattr(errno, name), "the disk fails")

        for module in (chunks, container, whole):
            monkeypatch.setattr(module, "demuxed", broken)

    return fail


@pytest.mark.parametrize("name", ["ETIMEDOUT", "ESTALE"])
def test_a_file_that_cannot_be_reached_is_no_file_that_ends(tmp_path, fails_with, name):
    path = video(tmp_path / "a.mp4", 300)
    fails_with(name)
    for read in (lambda: list(decode_chunks(path, fps=25)), lambda: decode(path)):
        with pytest.raises(VideoError, match="it is not a video that can be read"):
            read()


def test_a_mount_that_is_slow_between_keyframes_is_no_file_without_them(tmp_path, fails_with):
    path = video(tmp_path / "a.mp4", 300)
    fails_with("ETIMEDOUT", after=0)
    with pytest.raises(VideoError, match="it is not a video that can be read"):
        decode(path, sampling="keyframes")


def test_an_input_output_error_ends_the_frames_with_a_notice(tmp_path, fails_with):
    path = video(tmp_path / "a.mp4", 300)
    assert READ_FAILED not in decode(path).notices
    fails_with("EIO")
    frames = decode(path, frames=8)
    assert 190 < frames.decoded <= 200 and READ_FAILED in frames.notices
    *before, last = decode_chunks(path, fps=25, chunk_frames=64)
    assert last.last and READ_FAILED in last.frames.notices
    assert not any(chunk.frames.notices for chunk in before), "nothing is missing from those"
    (part,) = decode_chunks(path, fps=5, part=(2.0, 11.0))
    assert READ_FAILED in part.frames.notices and numbers(part.frames)[0] == 50


def test_a_part_that_ends_before_the_error_has_no_notice(tmp_path, fails_with):
    path = video(tmp_path / "a.mp4", 300)
    fails_with("EIO")
    (part,) = decode_chunks(path, fps=25, part=(2.0, 4.0))
    assert numbers(part.frames) == list(range(50, 100)) and part.frames.notices == ()


def test_keyframes_that_the_disk_withholds_are_no_sound_sample(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4", 400, gop=5)
    sought, calls = whole.keyframe_packet, itertools.count()

    def failing(*arguments):
        if next(calls) == 3:
            raise FFmpegError(errno.EIO, "the disk fails")
        return sought(*arguments)

    monkeypatch.setattr(whole, "keyframe_packet", failing)
    frames = decode(path, frames=10, sampling="keyframes")
    assert frames.notices == ("9 of 10 keyframes decode", READ_FAILED)


@pytest.mark.parametrize("name", ["EIO", "ESTALE"])
def test_an_image_that_the_disk_withholds_is_no_broken_image(tmp_path, monkeypatch, name):
    for i in range(4):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    opened = Image.open

    def failing(path):
        if path.name == "2.png":
            raise OSError(getattr(errno, name), "the disk fails")
        return opened(path)

    monkeypatch.setattr(Image, "open", failing)
    assert READ_FAILED in decode(tmp_path, frames=4).notices
    (tmp_path / "2.png").write_text("no image")
    monkeypatch.undo()
    assert READ_FAILED not in decode(tmp_path, frames=4).notices
