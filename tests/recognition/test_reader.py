"""The one loop that reads many videos: in order, lazily, bounded, each failure for itself, ended at once."""

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ost.backbones.base import prepared
from ost.errors import UsageError, VideoError
from ost.recognition import decoding, reader
from ost.recognition.decoding import Reading
from ost.recognition.reader import read_videos
from ost.recognition.settings import FrameRate, Settings
from ost.types import Frames, Span
from ost.video.decode import decode
from ost.video.live import LiveFrames

VIEWS = Settings(4)


@pytest.fixture
def videos(make_video):
    """Five videos of different pictures."""
    return [make_video(f"v{i}", frames=6 + i) for i in range(5)]


def paths_of(results):
    return [result.path for result in results]


def test_results_come_in_order_with_the_path_as_it_was_given(make_backbone, videos):
    results = list(read_videos(make_backbone(), videos, VIEWS, decoders=3))
    assert paths_of(results) == [str(video) for video in videos]
    assert all(isinstance(result, Reading) for result in results)
    assert {result.embeddings.values.shape for result in results} == {(1, 4, 24)}


@pytest.mark.parametrize("decoders", [1, 2, 7])
@pytest.mark.parametrize("batch_frames", [1, 8, 9, 1000])
def test_who_decodes_and_who_shares_a_batch_changes_nothing(make_backbone, videos, decoders, batch_frames):
    alone = [next(read_videos(make_backbone(), [video], VIEWS)) for video in videos]
    together = read_videos(make_backbone(), videos, VIEWS, decoders=decoders, batch_frames=batch_frames)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other.embeddings.values, one.embeddings.values, atol=1e-6, rtol=0)
        assert other.sample == one.sample


def test_videos_share_a_batch_until_it_is_full(make_backbone, videos):
    backbone, seen = make_backbone(), []
    embed = backbone.embed_clips
    backbone.embed_clips = lambda pixels: seen.append(pixels.shape[0]) or embed(pixels)
    list(read_videos(backbone, videos, VIEWS, batch_frames=8))
    assert seen == [2, 2, 1]
    seen.clear()
    list(read_videos(backbone, videos, VIEWS))
    assert seen == [1] * 5, "on a CPU each video alone"


def test_pixels_reach_the_towers_as_bytes(make_backbone, videos):
    backbone, seen = make_backbone(), []
    embed = backbone.embed_clips
    backbone.embed_clips = lambda pixels: seen.append(pixels) or embed(pixels)
    (result,) = read_videos(backbone, videos[:1], Settings(4, clips=2, crops=3))
    assert seen[0].dtype == torch.uint8 and seen[0].shape[:2] == (6, 4)
    torch.testing.assert_close(
        result.embeddings.values * result.embeddings.norms[..., None],
        embed(prepared(seen[0], backbone.preprocess)).values * result.embeddings.norms[..., None],
    )


def test_an_endless_iterable_is_read_as_far_as_it_is_asked_for(make_backbone, videos):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield videos[i % 5]

    results = read_videos(make_backbone(), endless(), VIEWS, decoders=2)
    assert len(list(itertools.islice(results, 6))) == 6
    assert len(taken) <= 6 + 2 + 2
    results.close()
    assert len(taken) <= 6 + 2 + 2


def test_no_videos_are_no_results(make_backbone):
    assert list(read_videos(make_backbone(), iter(()), VIEWS)) == []


def test_frames_that_were_decoded_already_are_taken(make_backbone, videos):
    (whole,) = read_videos(make_backbone(), videos[:1], VIEWS)
    frames = decoding.decode_views(videos[0], make_backbone().preprocess, VIEWS)
    (again,) = read_videos(make_backbone(), [frames], VIEWS)
    assert torch.equal(again.embeddings.values, whole.embeddings.values)


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), MemoryError("much"), KeyError("gone"), RecursionError()]
)
def test_whatever_goes_wrong_in_decoding_is_that_videos_failure(make_backbone, videos, monkeypatch, error):
    decode = decoding.decode_views

    def sometimes(path, *rest):
        if path == str(videos[2]):
            raise error
        return decode(path, *rest)

    monkeypatch.setattr(decoding, "decode_views", sometimes)
    results = list(read_videos(make_backbone(), [*videos, Path("gone.mp4")], VIEWS, decoders=2))
    failures = {result.path: result for result in results if isinstance(result, VideoError)}
    assert list(failures) == [str(videos[2]), "gone.mp4"]
    odd = failures[str(videos[2])]
    assert odd.__cause__ is error and f"internal error, {type(error).__name__}: " in odd.cause
    assert failures["gone.mp4"].cause == "there is no such file"


def test_a_video_that_the_towers_cannot_bear_fails_alone_in_its_batch(make_backbone, videos):
    backbone = make_backbone()
    embed = backbone.embed_clips
    black = Frames(np.zeros((4, 16, 16, 3), np.uint8), (0.0,) * 4, "black.mp4")

    def picky(pixels):
        if not pixels.flatten(1).any(1).all():
            raise RuntimeError("cannot bear it")
        return embed(pixels)

    backbone.embed_clips = picky
    results = list(read_videos(backbone, [*videos[:3], black, videos[4]], VIEWS, batch_frames=1000))
    assert [isinstance(result, VideoError) for result in results] == [False, False, False, True, False]
    assert "internal error, RuntimeError: cannot bear it" in results[3].cause


def test_memory_that_runs_out_halves_the_batch_and_loses_no_video(make_backbone, videos):
    backbone, seen = make_backbone(), []
    embed = backbone.embed_clips

    def small(pixels):
        if len(pixels) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        seen.append(len(pixels))
        return embed(pixels)

    backbone.embed_clips = small
    results = list(read_videos(backbone, videos * 2, VIEWS, batch_frames=16))
    assert len(results) == 10 and not any(isinstance(result, VideoError) for result in results)
    assert seen == [2] * 5, "after the first time the batches are of the size that fits"


def test_wrong_settings_are_wrong_use_and_no_failure_of_videos(make_backbone, videos):
    with pytest.raises(UsageError):
        next(read_videos(make_backbone(), videos, Settings(4, crops=4)))
    with pytest.raises(UsageError):
        next(read_videos(make_backbone(), videos, Settings(4, sampling="odd")))


def test_closing_ends_the_decoders_at_their_next_packet(make_backbone, videos, monkeypatch):
    from ost.video import decode as module

    entered, left = threading.Event(), threading.Event()
    demuxed, decode_views = module.demuxed, decoding.decode_views

    def endless(*arguments):
        return itertools.chain.from_iterable(itertools.repeat(list(demuxed(*arguments))))

    def watched(*arguments):
        entered.set()
        try:
            return decode_views(*arguments)
        finally:
            left.set()

    results = read_videos(make_backbone(), itertools.cycle(videos), VIEWS, decoders=2)
    next(results)
    monkeypatch.setattr(module, "demuxed", endless)
    monkeypatch.setattr(decoding, "decode_views", watched)
    while not entered.wait(0.2):  # what was decoded before
        next(results)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 1.0
    assert left.wait(5), "the decoder has given up a file without an end"


def test_ctrl_c_in_the_midst_of_a_long_film_ends_within_a_second(tmp_path, bikes):
    code = f"""
import itertools, signal, sys, threading, time, os
from ost.video import decode as module
demuxed = module.demuxed
module.demuxed = lambda *a: itertools.chain.from_iterable(itertools.repeat(list(demuxed(*a))))
import ost
model = ost.load("lite")
model.head(ost.pack(["a", "b"]))
def ask():
    time.sleep(1.0)
    print(time.time(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=ask, daemon=True).start()
try:
    model.recognize({str(bikes)!r}, ["a", "b"], frames=2)
except KeyboardInterrupt:
    print(time.time(), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    asked, ended = map(float, done.stdout.split())
    assert ended - asked < 1.0, "and the process ends, though its decoder was in a file without an end"


def test_one_place_decodes_many_videos():
    """Whoever reads many videos reads them here; training decodes augmented clips in processes of its own."""
    home = Path(reader.__file__).parents[1]
    sources = {
        file.relative_to(home).as_posix(): file.read_text(encoding="utf-8") for file in home.rglob("*.py")
    }

    def using(word):
        return {name for name, text in sources.items() if word in text}

    assert using("decode_views(") == {"recognition/decoding.py"}
    assert using("decode_chunks(") == {"recognition/decoding.py", "video/chunks.py"}
    assert using(" decode(") == {"recognition/decoding.py", "video/decode.py", "train/data.py"}
    assert using(" Decoder(") == {"recognition/reader.py"}
    assert using('"decode")') == {"recognition/reader.py", "cli/demo.py"}, "pools of threads that decode"


def test_a_video_has_the_same_bits_in_any_company(tiny, videos):
    from ost.backbones.load import load_backbone

    for backbone in (load_backbone(weights=tiny, dtype="fp32"), load_backbone("lite")):
        alone = [next(read_videos(backbone, [video], Settings(3))) for video in videos]
        together = list(read_videos(backbone, videos, Settings(3), batch_frames=1000))
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one.embeddings.values, other.embeddings.values)
            assert torch.equal(one.embeddings.unit_features, other.embeddings.unit_features)


# Parts, chunks, live sources.


@pytest.fixture
def film(tmp_path):
    """A file of 100 frames at 10 a second, of which each is another grey."""
    import av

    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr0"
        for i in range(100):
            picture = np.full((16, 24, 3), 2 * i, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path


def test_parts_of_a_file_are_named_as_media_fragments(make_backbone, film):
    parts = [(film, 2.0, 4.0), Span(film, 4.0), (film, 50.0, None), film]
    first, second, gone, whole = read_videos(make_backbone(), parts, VIEWS)
    assert paths_of([first, second, gone, whole]) == [
        f"{film}#t=2,4",
        f"{film}#t=4",
        f"{film}#t=50",
        str(film),
    ]
    assert first.sample.times == (2.2, 2.7, 3.2, 3.7)
    assert min(second.sample.times) >= 4.0
    assert gone.cause == "it has no frame from 50 to the end seconds; its last is at 9.9"
    frames = decode(film, frames=4, part=(2.0, 4.0), preprocess=make_backbone().preprocess)
    (expected,) = read_videos(make_backbone(), [frames], VIEWS)
    assert torch.equal(first.embeddings.values, expected.embeddings.values)


@pytest.mark.parametrize("decoders", [1, 3])
def test_a_long_video_comes_in_chunks_in_order(make_backbone, film, videos, decoders):
    backbone, seen = make_backbone(), []
    embed = backbone.embed_clips
    backbone.embed_clips = lambda pixels: seen.append(pixels.shape[:2]) or embed(pixels)
    inputs = [film, "gone.mkv", (film, 5.0, 7.0), videos[0], film]
    results = list(read_videos(backbone, inputs, FrameRate(5, 20), decoders=decoders))
    assert [(r.path, getattr(r, "chunk", None), getattr(r, "last", None)) for r in results] == [
        *((str(film), k, k == 2) for k in range(3)),
        ("gone.mkv", None, None),
        (f"{film}#t=5,7", 0, True),
        (str(videos[0]), None, None),
        *((str(film), k, k == 2) for k in range(3)),
    ]
    assert [t for r in results[:3] for t in r.sample.times] == [i / 5 for i in range(50)]
    assert seen[:3] == [(1, 20), (1, 20), (1, 10)]
    assert results[5].cause == "its frame images have no times, by which to take them at a rate"


def test_nothing_of_a_video_comes_after_its_failure(make_backbone, film):
    backbone, embed, calls = make_backbone(), make_backbone().embed_clips, []

    def once(pixels):
        calls.append(len(pixels))
        if len(calls) == 2:
            raise RuntimeError("cannot bear it")
        return embed(pixels)

    backbone.embed_clips = once
    first, failed, other, *_ = read_videos(backbone, [film, (film, 5.0, 7.0)], FrameRate(5, 20))
    assert isinstance(first, Reading) and isinstance(failed, VideoError)
    assert other.path == f"{film}#t=5,7"


def test_a_film_without_an_end_holds_few_chunks(make_backbone, film, monkeypatch):
    from ost.video import chunks as module

    demuxed, taken = module.demuxed, []

    def endless(container, stream):
        while True:
            for packet in demuxed(container, stream):
                if packet.size:
                    taken.append(packet)
                    yield packet
            container.seek(0)

    monkeypatch.setattr(module, "demuxed", endless)
    results = read_videos(make_backbone(), [film], FrameRate(5, 20))
    chunks = list(itertools.islice(results, 12))
    results.close()
    assert [r.chunk for r in chunks] == list(range(12)) and not any(r.last for r in chunks)
    times = [t for r in chunks for t in r.sample.times]
    assert times == sorted(times) and len(set(times)) == 240
    assert len(taken) < 2 * (12 + 2 + 1) * 20


def test_frames_pushed_by_another_thread_are_embedded_as_they_come(make_backbone):
    live = LiveFrames("camera", drop="none")
    results = read_videos(make_backbone(), [live], FrameRate(10, 4))
    pictures = [np.full((16, 24, 3), 20 * i, np.uint8) for i in range(10)]
    live.push(pictures[0], 0.0)
    first = next(results)
    assert first.path == "camera" and first.sample.times == (0.0,)
    for i, picture in enumerate(pictures[1:], 1):
        live.push(picture, i / 10)
    live.close()
    rest = list(results)
    assert [t for r in rest for t in r.sample.times] == [i / 10 for i in range(1, 10)]
    (whole,) = read_videos(make_backbone(), [Frames(np.stack(pictures), (0.0,) * 10, "")], Settings(10))
    together = torch.cat([r.embeddings.values for r in (first, *rest)], 1)
    torch.testing.assert_close(together, whole.embeddings.values, atol=1e-6, rtol=0)


def test_closing_does_not_wait_for_a_live_source(make_backbone):
    live = LiveFrames("camera")
    results = read_videos(make_backbone(), [live], FrameRate())
    live.push(np.zeros((16, 24, 3), np.uint8))
    next(results)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 1.0
    deadline = time.monotonic() + 5
    while live.push(np.zeros((16, 24, 3), np.uint8)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not live.push(np.zeros((16, 24, 3), np.uint8)), "whoever pushes learns that nobody reads"


def test_inputs_and_views_that_do_not_go_together_are_failures_of_their_own(make_backbone, videos):
    frames = decode(videos[0], frames=4)
    (refused,) = read_videos(make_backbone(), [frames], FrameRate())
    assert "cannot be sampled at a rate" in refused.cause
    live, good = read_videos(make_backbone(), [LiveFrames("camera"), videos[0]], VIEWS)
    assert "read it at a frame rate" in live.cause and isinstance(good, Reading)


def test_thumbnails_are_made_where_they_are_asked_for(make_backbone, videos):
    (without,) = read_videos(make_backbone(), videos[:1], Settings(4, clips=2))
    (found,) = read_videos(make_backbone(), videos[:1], Settings(4, clips=2), thumbnails=True)
    assert without.thumbnails is None and len(found.thumbnails.files) == 4
    assert found.thumbnails.aspect == pytest.approx(1.5)
    assert all(file.startswith(b"\xff\xd8\xff") for file in found.thumbnails.files)


def test_chunks_have_thumbnails_of_all_their_frames(make_backbone, film):
    live = LiveFrames("camera")
    live.push(np.zeros((16, 24, 3), np.uint8))
    live.close()
    results = list(read_videos(make_backbone(), [film, live], FrameRate(5, 20), thumbnails=True))
    assert [len(result.thumbnails.files) for result in results] == [20, 20, 10, 1]
