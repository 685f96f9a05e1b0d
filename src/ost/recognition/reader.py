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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Protocol

import torch
from torch import Tensor

from ost.activity import activity
from ost.backbones.base import Backbone
from ost.errors import OstError, UsageError, VideoError, internal_error
from ost.recognition.settings import Views
from ost.types import FrameEmbeddings, Frames, Preprocess
from ost.video.decode import Cancelled, decode
from ost.video.transform import view_pixels, view_preprocess

MOST_DECODERS = 16
AHEAD_BYTES = 1 << 30  # of pixels that wait for the towers; one video more may be on its way in each decoder
BATCH_FRAMES = {"cpu": 1}  # one video: more gain nothing there, and answers would come later
BATCH_FRAMES_ON_A_GPU = 1024


Source = str | Path | Frames


class Kept(Protocol):
    """Embeddings that are kept from one run to the next; see `ost.recognition.store.Store`."""

    def identity(self, path: str | Path) -> str | None:
        """What a video is kept under, as it is now; None if it cannot be kept."""
        ...

    def get(self, identity: str | None) -> FrameEmbeddings | None:
        """The embeddings kept under it, if there are any."""
        ...

    def put(self, identity: str | None, embedded: FrameEmbeddings) -> None:
        """Keep embeddings."""
        ...


@dataclass(frozen=True)
class Reading:
    """A video that was read.

    Attributes:
        path: the video as the caller named it.
        embeddings: [V, T, D], one row a view.
        frames: what was sampled; None where the embeddings were kept and no frame was decoded.
        seconds: in the towers, its share of what it went through with.
    """

    path: str
    embeddings: FrameEmbeddings
    frames: Frames | None = None
    seconds: float = 0.0


@dataclass
class _Unit:
    """A video on its way.

    Attributes:
        pixels: uint8 [V, T, 3, size, size]; None where `found` is there already.
        found: what comes out.
    """

    path: str
    identity: str | None = None
    frames: Frames | None = None
    pixels: Tensor | None = None
    found: Reading | VideoError | None = None

    @property
    def count(self) -> int:
        """Frames that go through the towers."""
        return 0 if self.pixels is None else self.pixels.shape[0] * self.pixels.shape[1]


def read_videos(
    backbone: Backbone,
    videos: Iterable[Source],
    views: Views,
    *,
    kept: Kept | None = None,
    decoders: int | None = None,
    batch_frames: int | None = None,
) -> Generator[Reading | VideoError]:
    """Embed the views of each video, in the order of the videos.

    Closing the generator ends the decoders at their next packet.

    Args:
        backbone: whose embeddings.
        videos: files, folders of frame images, or frames that were decoded with these views; taken as they are
            needed, so that there may be endlessly many.
        views: what to look at.
        kept: embeddings of earlier runs; videos that it has are not decoded.
        decoders: threads that decode; by default as many as the towers leave room for.
        batch_frames: frames from which on a batch of videos goes through the towers; a video is never cut. Halved when
            the memory of a GPU runs out, and what was in it is tried again in halves.

    Yields:
        A `Reading`, or the `VideoError` of a video that cannot be read.

    Raises:
        UsageError: these weights have no such views.
    """
    view_preprocess(backbone.preprocess, views.crops)  # refuses before anything is decoded
    threads = decoders or _decoders(backbone)
    at_once = batch_frames or BATCH_FRAMES.get(_device_type(backbone), BATCH_FRAMES_ON_A_GPU)
    reader = _Reader(backbone, views, kept, at_once, Event())
    pool = ThreadPoolExecutor(threads, "decode")
    try:
        yield from reader.results(pool, iter(videos), threads)
    finally:
        reader.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _device_type(backbone: Backbone) -> str:
    return torch.device(getattr(backbone, "device", "cpu")).type


def _decoders(backbone: Backbone) -> int:
    """How many videos to decode at once: all that the cores can, unless the towers want them."""
    return 1 if _device_type(backbone) == "cpu" else min(MOST_DECODERS, os.cpu_count() or 1)


@dataclass
class _Reader:
    """The stages of one pass; `stop` is seen by the decoders."""

    backbone: Backbone
    views: Views
    kept: Kept | None
    batch_frames: int
    stop: Event
    coming: deque[Future[_Unit]] = field(default_factory=deque["Future[_Unit]"])

    def results(
        self, pool: ThreadPoolExecutor, videos: Iterator[Source], threads: int
    ) -> Iterator[Reading | VideoError]:
        """Everything, in order."""
        batch: list[_Unit] = []
        self._submit(pool, videos, threads)
        while self.coming:
            with activity("decoding"):
                unit = self.coming.popleft().result()
            batch.append(unit)
            self._submit(pool, videos, threads)
            # Filled by counting and never by the clock, so that the same videos share a batch every time.
            if sum(unit.count for unit in batch) >= self.batch_frames or batch[0].found or not self.coming:
                yield from self._finished(batch)
                batch = []

    def _submit(self, pool: ThreadPoolExecutor, videos: Iterator[Source], threads: int) -> None:
        """Keep the decoders busy, as long as what waits for the towers is not too much."""
        ready = (future.result() for future in self.coming if future.done())
        waiting = sum(unit.pixels.nbytes for unit in ready if unit.pixels is not None)
        while len(self.coming) < max(1, threads) + 1 and waiting < AHEAD_BYTES:
            video = next(videos, None)
            if video is None:
                return
            self.coming.append(pool.submit(self._decode, video))

    def _decode(self, video: Source) -> _Unit:
        """What a decoder does with a video."""
        unit = _Unit(video.path if isinstance(video, Frames) else str(video))
        try:
            if isinstance(video, Frames):
                unit.frames = video
            else:
                if self.kept is not None:
                    unit.identity = self.kept.identity(video)
                    if embeddings := self.kept.get(unit.identity):
                        unit.found = Reading(unit.path, embeddings)
                        return unit
                unit.frames = decode_views(video, self.backbone.preprocess, self.views, self.stop)
            unit.pixels = view_pixels(unit.frames, self.backbone.preprocess, self.views.crops)
        except UsageError:  # of the settings, and so of every video
            raise
        except Exception as error:
            unit.found = failure(unit.path, error)
        return unit

    def _finished(self, batch: Sequence[_Unit]) -> Iterator[Reading | VideoError]:
        """A batch through the towers."""
        decoded = [unit for unit in batch if unit.pixels is not None]
        if decoded:
            with activity(f"looking at {sum(unit.count for unit in decoded)} frames"):
                self._embed(decoded)
        for unit in batch:
            assert unit.found is not None
            yield unit.found

    def _embed(self, units: Sequence[_Unit]) -> None:
        """Embed decoded videos together, or each alone where together they fail."""
        started = time.perf_counter()
        try:
            parts = [unit.pixels for unit in units if unit.pixels is not None]
            found = self._through_towers(parts[0] if len(parts) == 1 else torch.cat(parts))
        except UsageError:  # of the settings, and so of every video
            raise
        except Exception as error:
            if len(units) == 1:
                units[0].found, units[0].pixels = failure(units[0].path, error), None
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
            embeddings = some_clips(found, slice(start, start + views))
            start += views
            unit.found = self._checked(unit, embeddings, share * unit.count)
            unit.pixels = None

    def _through_towers(self, pixels: Tensor) -> FrameEmbeddings:
        if _device_type(self.backbone) == "cuda":
            pixels = pixels.pin_memory()
        return self.backbone.embed_clips(pixels)

    def _checked(self, unit: _Unit, embeddings: FrameEmbeddings, seconds: float) -> Reading | VideoError:
        if not bool(torch.isfinite(embeddings.norms).all()):
            return VideoError(
                unit.path, "the image tower gives numbers that are not finite for it; try towers in fp32"
            )
        if self.kept is not None:
            self.kept.put(unit.identity, embeddings)
        return Reading(unit.path, embeddings, unit.frames, seconds)


def decode_views(path: str | Path, preprocess: Preprocess, views: Views, stop: Event | None = None) -> Frames:
    """The frames of a video's views, scaled as the weights want them.

    Raises:
        VideoError: the video cannot be used.
        Cancelled: `stop` was set meanwhile.
    """
    return decode(
        path,
        frames=views.frames,
        clips=views.clips,
        sampling=views.sampling,
        preprocess=view_preprocess(preprocess, views.crops),
        min_decoded=views.min_decoded,
        stop=None if stop is None else stop.is_set,
    )


def failure(path: str, error: Exception) -> VideoError:
    """What went wrong with a video, as its failure; with what nobody foresaw as its cause."""
    if isinstance(error, VideoError):
        return error
    if isinstance(error, Cancelled):
        return VideoError(path, "reading it was cancelled")
    found = VideoError(path, str(error) if isinstance(error, OstError) else internal_error(error))
    found.__cause__ = error
    return found


def some_clips(frames: FrameEmbeddings, chosen: slice | list[int]) -> FrameEmbeddings:
    """Some clips of a batch."""
    mask = None if frames.mask is None else frames.mask[chosen]
    features = None if frames.features is None else frames.features[chosen]
    return replace(
        frames, values=frames.values[chosen], norms=frames.norms[chosen], mask=mask, features=features
    )
