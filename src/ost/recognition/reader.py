"""Videos -> frame embeddings: the one loop that reads many videos.

Videos are taken from any iterable as they are needed, decoded by threads ahead of the towers, and on a GPU go through
the towers several at a time. Results come in the order of the videos. What goes wrong with one, whatever it is, is the
failure of that one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from threading import Event

import torch
from torch import Tensor

from ost.activity import activity
from ost.backbones.base import Backbone
from ost.errors import UsageError, VideoError
from ost.recognition.decoding import Decoder, Kept, Reading, Unit, failure
from ost.recognition.settings import FrameRate, Settings
from ost.threads import DaemonPool
from ost.types import FrameEmbeddings, Seconds
from ost.video.live import LiveFrames
from ost.video.transform import view_preprocess

MOST_DECODERS = 16
MOST_UNITS = 64  # in a batch; those that were kept have no frames to count
AHEAD_BYTES = 1 << 30  # of pixels that wait for the towers; one video more may be on its way in each decoder
BATCH_FRAMES = {"cpu": 1}  # one video: more gain nothing there, and answers would come later
BATCH_FRAMES_ON_A_GPU = 1024


def read_videos(
    backbone: Backbone,
    videos: Iterable[object],
    views: Settings | FrameRate,
    *,
    kept: Kept | None = None,
    thumbnails: bool = False,
    decoders: int | None = None,
    ahead: int | None = None,
    batch_frames: int | None = None,
) -> Generator[Reading | VideoError]:
    """Embed the views of each video, in the order of the videos.

    At a frame rate a video gives its chunks in order, each as soon as it is embedded, and memory does not grow with its
    length; one that fails midway gives its `VideoError` after the chunks before. Closing the generator ends the
    decoders at their next packet.

    Args:
        backbone: whose embeddings.
        videos: files, folders of frame images, parts of files as (path, start, end) in seconds, frames that were
            decoded with these views, or a live source; taken as they are needed, so that there may be endlessly many.
        views: what to look at: views of the whole, or frames at a rate.
        kept: readings of earlier runs; videos that it has are not decoded.
        thumbnails: make pictures of the frames of the middle clip, or of the chunk; videos that are kept are decoded
            for them.
        decoders: threads that decode; by default as many as the towers leave room for.
        ahead: videos that are taken before the answer to the one before them is given; by default as many as there
            are decoders. 0 suits an iterable that waits for the answer, or gives videos as they come.
        batch_frames: frames from which on a batch of videos goes through the towers; a video is never cut. Halved when
            the memory of a GPU runs out, and what was in it is tried again in halves. Chunks go alone.

    Yields:
        A `Reading`, or the `VideoError` of a video that cannot be read.

    Raises:
        UsageError: these weights have no such views.
        Exception: what `videos` raises, after the results of the videos before.
    """
    if isinstance(views, Settings):
        view_preprocess(backbone.preprocess, views.crops)  # refuses before anything is decoded
    threads = decoders or _decoders(backbone)
    at_once = 1 if isinstance(views, FrameRate) else batch_frames or _batch_frames(backbone)
    decoder = Decoder(backbone.preprocess, views, kept, thumbnails, Event())
    pool = DaemonPool(threads, "decode")
    reader = _Reader(backbone, decoder, pool, threads if ahead is None else ahead, at_once)
    try:
        yield from reader.results(iter(videos))
    finally:
        decoder.stop.set()
        reader.close()


def _batch_frames(backbone: Backbone) -> int:
    return BATCH_FRAMES.get(backbone.device.type, BATCH_FRAMES_ON_A_GPU)


def _decoders(backbone: Backbone) -> int:
    """Return how many videos to decode at once: one a core, or one where the towers use the cores."""
    return 1 if backbone.device.type == "cpu" else min(MOST_DECODERS, os.cpu_count() or 1)


class _NoneLeft:
    """Marks the end of the videos; None may be one of them, and fails as one."""


_NONE_LEFT = _NoneLeft()


class _Decoding:
    """A video whose units are decoded one at a time: the next starts when the last is taken."""

    def __init__(self, pool: DaemonPool, units: Iterator[Unit]) -> None:
        self.pool, self.units = pool, units
        self.next: Future[Unit | None] = pool.submit(next, units, None)

    def take(self) -> Unit | None:
        """Wait for the next unit and return it; None at the end."""
        unit = self.next.result()
        if unit is not None and not unit.last:
            self.next = self.pool.submit(next, self.units, None)
        return unit

    @property
    def waiting_bytes(self) -> int:
        """Bytes of pixels of the decoded unit that was not taken yet."""
        unit = self.next.result() if self.next.done() else None
        return 0 if unit is None or unit.pixels is None else unit.pixels.nbytes


@dataclass
class _Reader:
    """One pass over the videos: decode, batch, embed."""

    backbone: Backbone
    decoder: Decoder
    pool: DaemonPool
    ahead: int
    batch_frames: int
    coming: deque[_Decoding] = field(default_factory=deque["_Decoding"])
    input_error: Exception | None = None  # what the iterable of videos raised

    def close(self) -> None:
        """Stop the decoder threads."""
        while self.coming:
            self._leave_first()
        self.pool.close()

    def _leave_first(self) -> None:
        """Drop the first video in progress, and the thread of a live source with it."""
        if (pool := self.coming.popleft().pool) is not self.pool:
            pool.close()

    def results(self, videos: Iterator[object]) -> Iterator[Reading | VideoError]:
        """Yield the results in the order of the videos."""
        batch: list[Unit] = []
        self._submit(videos)
        while self.coming:
            with activity("decoding"):
                unit = self.coming[0].take()
            if unit is None or unit.last:
                self._leave_first()
            if unit is not None:
                batch.append(unit)
            # Filled by counting and never by the clock, so that the same videos share a batch every time.
            full = sum(unit.count for unit in batch) >= self.batch_frames or len(batch) == MOST_UNITS
            if batch and (full or batch[0].result or not self.coming):
                yield from self._finished(batch)
                if isinstance(batch[-1].result, VideoError) and not batch[-1].last:
                    self._leave_first()  # nothing of a video comes after its failure
                batch = []
            # After the answers: an iterable may give its next video late.
            self._submit(videos)
        if self.input_error is not None:
            raise self.input_error

    def _submit(self, videos: Iterator[object]) -> None:
        """Submit videos until `ahead` are in progress or `AHEAD_BYTES` of pixels wait for the towers."""
        waiting = sum(decoding.waiting_bytes for decoding in self.coming)
        while len(self.coming) < self.ahead + 1 and waiting < AHEAD_BYTES and self.input_error is None:
            try:
                video = next(videos, _NONE_LEFT)
            except Exception as error:  # raised once the videos before have their results
                self.input_error = error
                return
            if isinstance(video, _NoneLeft):
                return
            pool = self.pool
            if isinstance(video, LiveFrames):  # waits for frames, and would keep a decoder from all others
                pool = DaemonPool(1, "live")
            self.coming.append(_Decoding(pool, self.decoder.units(video)))

    def _finished(self, batch: Sequence[Unit]) -> Iterator[Reading | VideoError]:
        """Embed a batch and yield its results."""
        decoded = [unit for unit in batch if unit.pixels is not None]
        if decoded:
            with activity(f"looking at {sum(unit.count for unit in decoded)} frames"):
                self._embed(decoded)
        for unit in batch:
            assert unit.result is not None
            yield unit.result

    def _embed(self, units: Sequence[Unit]) -> None:
        """Embed decoded units together; if that fails, in halves."""
        started = time.perf_counter()
        try:
            parts = [unit.pixels for unit in units if unit.pixels is not None]
            embedded = self._through_towers(parts[0] if len(parts) == 1 else torch.cat(parts))
        except UsageError:  # of the settings, and so of every video
            raise
        except Exception as error:
            if len(units) == 1:
                units[0].result, units[0].pixels = failure(units[0].path, error), None
                return
            if isinstance(error, torch.cuda.OutOfMemoryError):
                self.batch_frames = max(1, self.batch_frames // 2)
            for part in (units[: len(units) // 2], units[len(units) // 2 :]):
                self._embed(part)
            return
        share = (time.perf_counter() - started) / sum(unit.count for unit in units)
        start = 0
        for unit in units:
            assert unit.pixels is not None
            views = unit.pixels.shape[0]
            embeddings = some_clips(embedded, slice(start, start + views))
            start += views
            unit.result = self._checked(unit, embeddings, share * unit.count)
            unit.pixels = None

    def _through_towers(self, pixels: Tensor) -> FrameEmbeddings:
        if self.backbone.device.type == "cuda":
            pixels = pixels.pin_memory()
        return self.backbone.embed_clips(pixels)

    def _checked(self, unit: Unit, embeddings: FrameEmbeddings, towers: float) -> Reading | VideoError:
        if not bool(torch.isfinite(embeddings.norms).all()):
            return VideoError(
                unit.path, "the image tower gives numbers that are not finite for it; try towers in fp32"
            )
        assert unit.sample is not None
        seconds = Seconds(unit.decoding, towers)
        reading = Reading(unit.path, embeddings, unit.sample, unit.thumbnails, seconds, unit.chunk, unit.last)
        if self.decoder.kept is not None:
            self.decoder.kept.put(unit.identity, reading)
        return reading


def some_clips(frames: FrameEmbeddings, chosen: slice | list[int]) -> FrameEmbeddings:
    """Select clips of a batch."""
    mask = None if frames.mask is None else frames.mask[chosen]
    features = None if frames.features is None else frames.features[chosen]
    return replace(
        frames, values=frames.values[chosen], norms=frames.norms[chosen], mask=mask, features=features
    )
