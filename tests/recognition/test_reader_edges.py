"""The reader where inputs are late, endless, malformed or quiet, and where nobody waits for it any more."""

import errno
import gc
import itertools
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from av.error import FFmpegError

from ost.errors import VideoError
from ost.recognition import decoding
from ost.recognition.decoding import Reading
from ost.recognition.reader import MOST_UNITS, read_videos
from ost.recognition.settings import FrameRate, Settings
from ost.recognition.store import Store
from ost.types import Sample, Span
from ost.video import chunks, container, decode
from ost.video.container import READ_FAILED
from ost.video.live import LiveFrames

VIEWS = Settings(4)
GREY = np.zeros((16, 24, 3), np.uint8)


@pytest.fixture
def videos(make_video):
    """Three videos of different pictures."""
    return [make_video(f"v{i}") for i in range(3)]


def test_an_iterable_may_wait_for_the_answer_to_the_video_before(make_backbone, videos):
    answered = []

    def one_by_one():
        for i, video in enumerate(videos):
            assert len(answered) == i, "the answer is there before the next video is asked for"
            yield video

    for result in read_videos(make_backbone(), one_by_one(), VIEWS, ahead=0):
        answered.append(result)
    assert len(answered) == 3


def test_answers_come_before_more_videos_are_asked_for(make_backbone, videos):
    asked = []

    def counted():
        for i in range(10):
            asked.append(i)
            yield videos[i % 3]

    results = read_videos(make_backbone(), counted(), VIEWS, decoders=1)
    for answers in range(1, 5):
        next(results)
        assert len(asked) == answers + 1


@pytest.mark.parametrize("settings", [{}, {"decoders": 2}, {"batch_frames": 1000}, {"ahead": 0}], ids=str)
@pytest.mark.parametrize("count", [0, 3])
def test_an_iterable_that_fails_loses_no_answer_and_is_the_callers_error(
    make_backbone, videos, settings, count
):
    error, asked = ZeroDivisionError("the list breaks off"), []

    class Failing:
        def __iter__(self):
            return self

        def __next__(self):
            asked.append(len(asked))
            if len(asked) > count:
                raise error
            return videos[asked[-1]]

    results = read_videos(make_backbone(), Failing(), VIEWS, **settings)
    assert [next(results).path for _ in range(count)] == [str(video) for video in videos[:count]]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert caught.value is error and len(asked) == count + 1, "and it is not asked again"


@pytest.mark.parametrize(
    "part",
    [
        *(("a.mp4", None, 10.0), ("a.mp4", "soon", None), ("a.mp4", 10**400, None), ("a.mp4", 1.0)),
        *(("a.mp4", 1, 2, 3), (None, 0, 1), (5, 0, 1), ({"a": 1}, 0, 1), (), None),
    ],
    ids=lambda part: str(part)[:20],
)
def test_what_is_no_video_is_a_failure_of_its_own(make_backbone, videos, part):
    first, refused, last = read_videos(make_backbone(), [videos[0], part, videos[1]], VIEWS)
    assert isinstance(first, Reading) and isinstance(last, Reading)
    assert isinstance(refused, VideoError) and "internal error" not in refused.cause
    assert refused.path[:9] == str(part).replace("{'a': 1}", "<dict>")[:9], "the value is shown"


def test_parts_have_names_of_their_own():
    assert str(Span("a.mp4", 36000.25, 36010.25)) == "a.mp4#t=36000.25,36010.25"
    assert str(Span("a.mp4", 1234567.5)) == "a.mp4#t=1234567.5"
    assert str(Span("a.mp4", 0.0, 10)) == "a.mp4#t=0,10"


def test_a_quiet_source_keeps_nobody_from_reading(make_backbone, bikes):
    quiet = LiveFrames("quiet")
    results = read_videos(make_backbone(), [bikes, quiet], FrameRate(4, 5), decoders=1)
    found = []
    thread = threading.Thread(target=lambda: found.extend(r for r in results if r.path != "quiet"))
    thread.start()
    thread.join(2)
    assert thread.is_alive(), "the quiet source is waited for"
    assert len(found) == 8 and found[-1].last, "and all of the film came before"
    quiet.close()
    thread.join(10)


def test_a_source_that_is_refused_frees_whoever_pushes(make_backbone):
    live = LiveFrames("camera", capacity=1, drop="none")
    assert live.push(GREY)
    (refused,) = read_videos(make_backbone(), [live], VIEWS)
    assert isinstance(refused, VideoError)
    assert live.push(GREY) is False


EXIT = """
import sys, time
import numpy as np
import torch
from ost.backbones.base import frame_embeddings
from ost.recognition.reader import read_videos
from ost.recognition.settings import FrameRate, Settings
from ost.types import Preprocess
from ost.video.live import LiveFrames

class Towers:
    preprocess, adapter = Preprocess(16, 16, "bilinear", False, (0.5,) * 3, (0.25,) * 3), None
    device = torch.device("cpu")

    def embed_clips(self, pixels):
        return frame_embeddings(pixels[..., 0].float().mean(-1) + 1)

live = LiveFrames("camera")
live.push(np.zeros((16, 24, 3), np.uint8))
results = read_videos(Towers(), [live], FrameRate())
next(results)
print("read", flush=True)
if sys.argv[1] == "error":
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize("how", ["end", "error"])
def test_a_program_ends_while_a_reader_stands_open(how):
    done = subprocess.run([sys.executable, "-c", EXIT, how], capture_output=True, text=True, timeout=20)
    assert done.stdout == "read\n"
    assert done.returncode == (0 if how == "end" else -2 if done.returncode < 0 else 130)


def test_a_failure_holds_no_frames(make_backbone, videos, monkeypatch):
    held = []

    def failing(*_):
        pictures = np.zeros((1000, 1000), np.uint8)
        held.append(weakref.ref(pictures))
        raise RuntimeError("odd")

    monkeypatch.setattr(decoding, "decode_views", failing)
    failures = list(read_videos(make_backbone(), videos, VIEWS))
    gc.collect()
    assert [ref() for ref in held] == [None] * 3
    assert "odd" in failures[0].cause and failures[0].__cause__.__traceback__ is not None


def test_videos_that_are_kept_do_not_wait_for_a_full_batch(make_backbone, videos):
    fresh = make_backbone()
    (reading,) = read_videos(fresh, videos[:1], VIEWS)

    class AllButTheFirst:
        def identity(self, path, part=None):
            return None if path == videos[0] else str(path)

        def get(self, identity, chunk=0):
            return identity and Reading("", reading.embeddings, Sample((0.0,) * 4))

        def put(self, identity, reading):
            pass

    taken = []

    def inputs():
        for i in range(1000):
            taken.append(i)
            yield videos[1 if i else 0]

    results = read_videos(fresh, inputs(), VIEWS, kept=AllButTheFirst(), batch_frames=10**6)
    next(results)
    assert len(taken) <= MOST_UNITS + 2


def test_a_live_source_that_has_ended_keeps_no_thread(make_backbone):
    def sources():
        for i in range(30):
            live = LiveFrames(f"camera {i}")
            live.push(GREY)
            live.close()
            yield live

    before, most = threading.active_count(), 0
    for _ in read_videos(make_backbone(), sources(), FrameRate(), decoders=1):
        most = max(most, threading.active_count() - before)
    assert most < 10


@pytest.mark.parametrize("views", [VIEWS, FrameRate(4, 10)])
def test_what_a_failing_disk_cut_short_is_not_kept(make_backbone, bikes, monkeypatch, views):
    backbone = make_backbone()

    def read():
        with Store(backbone, views) as store:
            return list(read_videos(backbone, [bikes], views, kept=store))

    def failing(*arguments):
        yield from itertools.islice(container.demuxed(*arguments), 200)
        raise FFmpegError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        for module in (chunks, decode):
            patch.setattr(module, "demuxed", failing)
        cut = read()
    assert READ_FAILED in cut[-1].sample.notices and cut[-1].last
    whole = read()
    assert [r.sample for r in whole] == [r.sample for r in read_videos(backbone, [bikes], views)]
    backbone.embed_clips = None
    assert [r.sample for r in read()] == [r.sample for r in whole], "and the whole is kept"
