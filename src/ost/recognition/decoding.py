"""Decode one input for the reader: a whole video, a part of it, or chunk by chunk."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from torch import Tensor

from ost.errors import OstError, UsageError, VideoError, internal_error
from ost.recognition.settings import FrameRate, Settings
from ost.types import FrameEmbeddings, Frames, Preprocess, Sample, Seconds, Span, Thumbnails
from ost.video.chunks import decode_chunks
from ost.video.container import READ_FAILED, Cancelled
from ost.video.decode import decode
from ost.video.live import LiveFrames
from ost.video.sample import Part
from ost.video.thumbnails import thumbnails
from ost.video.transform import view_pixels, view_preprocess

Source = str | Path | Span | tuple[str | Path, float, float | None] | Frames | LiveFrames


@dataclass(frozen=True)
class Reading:
    """A video that was read, or a chunk of one.

    Attributes:
        path: the video as the caller named it; a part of one as a media fragment, `clip.mp4#t=10,20`.
        embeddings: [V, T, D], one row a view; of a chunk [1, T, D].
        sample: which frames they are.
        thumbnails: pictures of the frames of the middle clip, or of the chunk; None where they were not asked for.
        seconds: of decoding, and of the towers its share of what it went through with; 0 for what was kept.
        chunk: which chunk of its video it is.
        last: whether no chunk of its video follows; of a live source that is not known.
    """

    path: str
    embeddings: FrameEmbeddings
    sample: Sample
    thumbnails: Thumbnails | None = None
    seconds: Seconds = Seconds()  # noqa: RUF009 - frozen
    chunk: int = 0
    last: bool = True


class Kept(Protocol):
    """A cache of readings; see `ost.recognition.store.Store`."""

    def identity(self, path: str | Path, part: Part | None = None) -> str | None:
        """Return the cache key of a video or a part in its present state; None if it cannot be cached."""
        ...

    def get(self, identity: str | None, chunk: int = 0) -> Reading | None:
        """Return the cached reading, without its path; None if there is none."""
        ...

    def put(self, identity: str | None, reading: Reading) -> None:
        """Cache a reading."""
        ...


@dataclass
class Unit:
    """A video or chunk on its way through the reader.

    Attributes:
        path: see `Reading`.
        last: whether no unit of its video follows.
        identity: what it is kept under.
        pixels: uint8 [V, T, 3, size, size]; None where `found` is there already.
        found: what comes out.
    """

    path: str
    last: bool = True
    identity: str | None = None
    chunk: int = 0
    pixels: Tensor | None = None
    sample: Sample | None = None
    thumbnails: Thumbnails | None = None
    decoding: float = 0.0
    found: Reading | VideoError | None = None

    @property
    def count(self) -> int:
        """Number of frames to embed."""
        return 0 if self.pixels is None else self.pixels.shape[0] * self.pixels.shape[1]


@dataclass(frozen=True)
class Decoder:
    """Decodes inputs into units.

    Attributes:
        preprocess: the pixels that the towers want.
        views: what to look at.
        kept: readings of earlier runs.
        pictures: whether to make thumbnails.
        stop: is seen at every packet.
    """

    preprocess: Preprocess
    views: Settings | FrameRate
    kept: Kept | None
    pictures: bool
    stop: Event

    def units(self, video: Source) -> Iterator[Unit]:
        """Yield the units of a video; any exception becomes its failure and its last unit."""
        path = type(video).__name__
        try:
            path = str(video)
            path = path_of(video)
            if isinstance(self.views, FrameRate):
                yield from self._chunks(path, video, self.views)
            else:
                yield self._whole(path, video, self.views)
        except UsageError:  # of the settings, and so of every video
            raise
        except Exception as error:
            yield Unit(path, found=failure(path, error))
        finally:
            if isinstance(video, LiveFrames):
                video.close()  # whoever pushes learns that nobody reads

    def _whole(self, path: str, video: Source, views: Settings) -> Unit:
        if isinstance(video, LiveFrames):
            raise VideoError(
                path, "a live source has no end over which to spread frames; read it at a frame rate"
            )
        if isinstance(video, Frames):
            return self._decoded(Unit(path), video, views.crops)
        file, part = _file_and_part(video)
        identity = None if self.kept is None else self.kept.identity(file, part)
        if not self.pictures and (cached := self._cached(identity)) is not None:
            return Unit(path, found=replace(cached, path=path))
        frames = decode_views(file, self.preprocess, views, self.stop, part)
        identity = self._cacheable(identity, frames, file, part)
        return self._decoded(Unit(path, identity=identity), frames, views.crops)

    def _chunks(self, path: str, video: Source, rate: FrameRate) -> Iterator[Unit]:
        if isinstance(video, Frames):
            raise VideoError(path, "frames that were sampled before cannot be sampled at a rate")
        if isinstance(video, LiveFrames):
            chunks = video.chunks(rate.fps, rate.chunk_frames, self.preprocess, self.stop.is_set)
            for number, (frames, last) in enumerate(chunks):
                yield self._decoded(Unit(path, last, chunk=number), frames)
            return
        file, part = _file_and_part(video)
        identity, skip = None if self.kept is None else self.kept.identity(file, part), 0
        while not self.pictures and (cached := self._cached(identity, skip)) is not None:
            yield Unit(path, cached.last, chunk=skip, found=replace(cached, path=path))
            if cached.last:
                return
            skip += 1
        chunks = decode_chunks(
            file,
            fps=rate.fps,
            chunk_frames=rate.chunk_frames,
            preprocess=self.preprocess,
            part=part,
            skip=skip,
            stop=self.stop.is_set,
        )
        for number, (frames, last) in enumerate(chunks, skip):
            identity = self._cacheable(identity, frames, file, part)
            yield self._decoded(Unit(path, last, identity, number), frames)

    def _cached(self, identity: str | None, chunk: int = 0) -> Reading | None:
        return None if self.kept is None else self.kept.get(identity, chunk)

    def _decoded(self, unit: Unit, frames: Frames, crops: int = 1) -> Unit:
        """Return the unit with its pixels, or with its cached reading where only the thumbnails were missing."""
        unit.thumbnails = thumbnails(frames) if self.pictures else None
        unit.sample, unit.decoding = frames.sample, frames.seconds
        if self.pictures and (cached := self._cached(unit.identity, unit.chunk)) is not None:
            seconds = Seconds(decoding=frames.seconds)
            unit.found = replace(cached, path=unit.path, thumbnails=unit.thumbnails, seconds=seconds)
        else:
            unit.pixels = view_pixels(frames, self.preprocess, crops)
        return unit

    def _cacheable(
        self, identity: str | None, frames: Frames, file: str | Path, part: Part | None
    ) -> str | None:
        """Return the identity if the file was read well and did not change while it was decoded, else None."""
        same = self.kept is not None and identity == self.kept.identity(file, part)
        return identity if same and READ_FAILED not in frames.notices else None


def path_of(video: object) -> str:
    """Return the name of an input in its results.

    Raises:
        VideoError: it is none.
    """
    if isinstance(video, Frames):
        return video.path
    if isinstance(video, LiveFrames):
        return video.name
    if isinstance(video, tuple):
        return str(_span(video))
    if not isinstance(video, str | os.PathLike):
        raise VideoError(
            video, f"a video is a path, a part, frames or a live source, not a {type(video).__name__}"
        )
    return str(video)


def _file_and_part(
    video: str | Path | tuple[str | Path, float, float | None],
) -> tuple[str | Path, Part | None]:
    if not isinstance(video, tuple):
        return video, None
    span = _span(video)
    return span.video, (span.start, span.end)


def _span(given: tuple[Any, ...]) -> Span:
    """Parse and check a part.

    Raises:
        VideoError: it is none.
    """
    try:
        video, start, end = given
        span = Span(video, float(start), None if end is None else float(end))
    except (TypeError, ValueError, OverflowError):
        raise VideoError(given, "a part is (video, start, end) in seconds, where end may be None") from None
    if not isinstance(video, str | os.PathLike):
        raise VideoError(given, f"the video of a part is a path, not a {type(video).__name__}")
    return span


def decode_views(
    path: str | Path,
    preprocess: Preprocess,
    views: Settings,
    stop: Event | None = None,
    part: Part | None = None,
) -> Frames:
    """Decode the frames of a video's views, scaled for the weights.

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
        part=part,
        stop=None if stop is None else stop.is_set,
    )


def failure(path: str, error: Exception) -> VideoError:
    """Turn an exception into the failure of a video; an unexpected one becomes its `__cause__`."""
    _forget_locals(error)
    if isinstance(error, VideoError):
        return error if error.path == path or "#t=" not in path else _renamed(error, path)
    if isinstance(error, Cancelled):
        return VideoError(path, "reading it was cancelled")
    found = VideoError(path, str(error) if isinstance(error, OstError) else internal_error(error))
    found.__cause__ = error
    return found


def _renamed(error: VideoError, path: str) -> VideoError:
    """Return the failure of a part under the name of the part."""
    found = VideoError(path, error.cause)
    found.__cause__ = error.__cause__
    return found


def _forget_locals(error: BaseException) -> None:
    """Clear the local variables of a traceback, which may hold all frames of a video; its lines stay."""
    links: list[BaseException] = [error]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if id(link) in seen:  # an error may be its own cause
            continue
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        links += [one for one in (link.__cause__, link.__context__) if one is not None]
