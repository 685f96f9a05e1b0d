"""Videos in memory: arrays, pictures and decoders of other libraries."""

import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ost.errors import UsageError, VideoError
from ost.types import Preprocess
from ost.video.chunks import decode_chunks
from ost.video.decode import decode
from ost.video.memory import FrameSequence
from ost.video.sample import test_indices as sampled_indices

SMALL = Preprocess(32, 32, "bilinear", True, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 255, (20, 24, 40, 3), dtype=np.uint8)


def same(found, expected):
    assert np.array_equal(found.pixels, expected.pixels)
    assert (found.times, found.decoded, found.notices) == (expected.times, expected.decoded, expected.notices)


def lost(_):
    raise OSError("connection lost")


class Decoder:
    """As torchcodec's `VideoDecoder`: frames [n, 3, H, W] by index."""

    def __init__(self, frames, rate):
        self.frames = torch.from_numpy(frames).permute(0, 3, 1, 2)
        self.metadata = SimpleNamespace(num_frames=len(frames), average_fps=rate, path=None)

    def get_frames_at(self, indices):
        return SimpleNamespace(data=self.frames[indices], pts_seconds=[i / 10 for i in indices])


@pytest.mark.parametrize(
    "make",
    [
        lambda f: f,
        torch.from_numpy,
        lambda f: [Image.fromarray(picture) for picture in f],
        FrameSequence,
        lambda f: Decoder(f, 10.0),
    ],
    ids=["array", "tensor", "pictures", "sequence", "decoder"],
)
def test_frames_in_memory_are_sampled_like_those_of_a_file(make, frames):
    found = decode(make(frames), frames=5, clips=2)
    indices = sampled_indices(len(frames), 5, 2)
    assert np.array_equal(found.pixels, frames[indices])
    assert (found.clips, found.decoded, len(found)) == (2, 20, 10)
    assert decode(make(frames), frames=5, preprocess=SMALL).pixels.shape[1] == 32


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=30), st.data())
def test_parts_and_rates_of_timed_frames_are_by_their_clock(gaps, data):
    times = np.cumsum(gaps).tolist()
    pixels = np.arange(len(times), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    start = data.draw(st.sampled_from(times))
    video = FrameSequence(pixels, times, "v")
    inside = [i for i, t in enumerate(times) if start - 1e-3 <= t]
    found = decode(video, frames=len(inside), part=(start, None))
    assert found.pixels[:, 0, 0, 0].tolist() == inside
    chunks = list(decode_chunks(video, fps=2, chunk_frames=4))
    taken = [t for chunk in chunks for t in chunk.frames.times]
    assert len({math.floor((t + 1e-6) * 2) for t in taken}) == len(taken) and taken[0] == times[0]
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_frames_without_times_have_no_parts_and_no_rate(frames):
    with pytest.raises(VideoError, match="its frames have no times"):
        decode(frames, part=(0, 1))
    with pytest.raises(VideoError, match="its frames have no times"):
        list(decode_chunks(frames))


def test_a_sequence_refuses_times_that_cannot_be_meant(frames):
    with pytest.raises(UsageError, match="has 20 frames, and 3 times"):
        FrameSequence(frames, [0, 1, 2])
    with pytest.raises(UsageError, match="the times of its frames must rise"):
        FrameSequence(frames, [0.0] * 20)


def test_frames_can_be_indexed_and_carry_times(bikes):
    found = decode(bikes, frames=4)
    assert len(found) == 4 and found[-1].seconds == found.times[-1]
    assert np.array_equal(found[1].pixels, found.pixels[1])
    assert "272x640x3" in repr(found[0]) and len(repr(found)) < 200


def test_errors_never_hold_a_whole_video(bikes, frames):
    data = bikes.read_bytes()
    for video in (
        {"path": "a", "bytes": data, "x": 1},
        frames.astype(float),
        torch.nn.Parameter(torch.zeros(3)),
    ):
        with pytest.raises(VideoError) as caught:
            decode(video)
        assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_a_decoder_that_gives_other_frames_is_refused(frames):
    decoder = Decoder(frames, 10.0)
    decoder.get_frames_at = lambda indices: SimpleNamespace(data=torch.zeros(1, 3, 4, 4), pts_seconds=[0.0])
    with pytest.raises(VideoError, match=r"its decoder gave torch.float32 \[1, 3, 4, 4\] for 4 frames"):
        decode(decoder, frames=4)


def test_the_times_of_a_decoder_are_its_own(frames):
    decoder = Decoder(frames, 25.0)
    assert decode(decoder, frames=2).times == (0.5, 1.5)  # and not those of its average rate


def test_a_decoder_is_asked_by_one_thread_at_a_time(frames):
    class Counting(Decoder):
        now = most = 0

        def get_frames_at(self, indices):
            Counting.now += 1
            Counting.most = max(Counting.most, Counting.now)
            time.sleep(0.01)
            Counting.now -= 1
            return super().get_frames_at(indices)

    decoder = Counting(frames, 10.0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: decode(decoder, frames=4), range(8)))
    assert Counting.most == 1


@pytest.mark.parametrize("count", [-1, 0, 10**10, 2.5, None])
def test_a_decoder_without_a_sound_number_of_frames_fails_alone(frames, count):
    decoder = Decoder(frames, 10.0)
    decoder.metadata.num_frames = count
    with pytest.raises(VideoError, match="it cannot have"):
        decode(decoder)


def test_a_decoder_that_fails_is_one_sentence(frames):
    decoder = Decoder(frames, 10.0)
    decoder.get_frames_at = lost
    with pytest.raises(VideoError, match=r"its decoder failed \(connection lost"):
        decode(decoder)


def test_pictures_of_more_bits_are_refused_and_lazy_ones_are_read_once(tmp_path):
    with pytest.raises(VideoError, match="its pictures are of mode I;16"):
        decode([Image.new("I;16", (8, 8))] * 2)
    for i in range(6):
        Image.fromarray(np.full((200, 200, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        lazy = FrameSequence([stack.enter_context(Image.open(tmp_path / f"{i}.png")) for i in range(6)])
        results = list(pool.map(lambda _: decode(lazy, frames=6).pixels[:, 0, 0, 0].tolist(), range(4)))
    assert results == [[0, 1, 2, 3, 4, 5]] * 4
