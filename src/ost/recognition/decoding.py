"""Decode one input for the reader: a whole video, a part of it, or chunk by chunk."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from torch import Tensor

from ost.errors import OstError, UsageError, VideoError, internal_error
from ost.recognition.settings import FrameRate, Settings
from ost.types import FrameEmbeddings, Frames, Preprocess, Sample, Seconds, Span, Thumbnails
from ost.video.chunks import decode_chunks
from ost.video.container import READ_FAILED, Cancelled
from ost.video.decode import decode
from ost.video.live import LiveFrames
from ost.video.memory import Indexed
from ost.video.picture import check_size
from ost.video.place import Video, as_video, name_of, short_name
from ost.video.sample import Part
from ost.video.stream import Stream
from ost.video.thumbnails import thumbnails
from ost.video.transform import view_pixels, view_preprocess

# A video, a part of one in seconds, frames that were sampled before, or a live source.
if TYPE_CHECKING:
    Source = Video | Span | tuple[Video, float, float | None] | Frames | LiveFrames
else:
    Source = Any


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
        identity: its cache key.
        pixels: uint8 [V, T, 3, size, size]; None where there is a `result` already.
        result: the reading or the failure.
    """

    path: str
    last: bool = True
    identity: str | None = None
    chunk: int = 0
    pixels: Tensor | None = None
    sample: Sample | None = None
    thumbnails: Thumbnails | None = None
    decoding: float = 0.0
    result: Reading | VideoError | None = None

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

    def units(self, source: object) -> Iterator[Unit]:
        """Yield the units of an input; any exception becomes its failure and its last unit."""
        path = f"<{type(source).__name__}>"
        try:
            path = short_name(source)
            given = _input_of(source)
            path = given.path
            if isinstance(self.views, FrameRate):
                yield from self._chunks(given, self.views)
            else:
                yield self._whole(given, self.views)
        except UsageError:  # of the settings, and so of every video
            raise
        except Exception as error:
            yield Unit(path, result=failure(path, error))
        finally:
            if isinstance(source, LiveFrames):
                source.close()  # whoever pushes learns that nobody reads

    def _whole(self, given: _Input, views: Settings) -> Unit:
        path, video, part = given
        if isinstance(video, LiveFrames):
            raise VideoError(
                path, "a live source has no end over which to spread frames; read it at a frame rate"
            )
        if isinstance(video, Frames):
            return self._decoded(Unit(path), _checked_frames(path, video), views.crops)
        identity = self._identity(given)
        if not self.pictures and (cached := self._cached(identity)) is not None:
            return Unit(path, result=replace(cached, path=path))
        frames = decode_views(video, self.preprocess, views, self.stop, part)
        identity = self._cacheable(identity, frames, given)
        return self._decoded(Unit(path, identity=identity), frames, views.crops)

    def _chunks(self, given: _Input, rate: FrameRate) -> Iterator[Unit]:
        path, video, part = given
        if isinstance(video, Frames):
            raise VideoError(path, "frames that were sampled before cannot be sampled at a rate")
        if isinstance(video, LiveFrames):
            chunks = video.chunks(rate.fps, rate.chunk_frames, self.preprocess, self.stop.is_set)
            for number, (frames, last) in enumerate(chunks):
                yield self._decoded(Unit(path, last, chunk=number), frames)
            return
        identity, skip = self._identity(given), 0
        while not self.pictures and (cached := self._cached(identity, skip)) is not None:
            yield Unit(path, cached.last, chunk=skip, result=replace(cached, path=path))
            if cached.last:
                return
            skip += 1
        chunks = decode_chunks(
            video,
            fps=rate.fps,
            chunk_frames=rate.chunk_frames,
            preprocess=self.preprocess,
            part=part,
            skip=skip,
            stop=self.stop.is_set,
        )
        for number, (frames, last) in enumerate(chunks, skip):
            identity = self._cacheable(identity, frames, given)
            yield self._decoded(Unit(path, last, identity, number), frames)

    def _cached(self, identity: str | None, chunk: int = 0) -> Reading | None:
        return None if self.kept is None else self.kept.get(identity, chunk)

    def _decoded(self, unit: Unit, frames: Frames, crops: int = 1) -> Unit:
        """Return the unit with its pixels, or with its cached reading where only the thumbnails were missing."""
        unit.thumbnails = thumbnails(frames) if self.pictures else None
        unit.sample, unit.decoding = frames.sample, frames.seconds
        if self.pictures and (cached := self._cached(unit.identity, unit.chunk)) is not None:
            seconds = Seconds(decoding=frames.seconds)
            unit.result = replace(cached, path=unit.path, thumbnails=unit.thumbnails, seconds=seconds)
        else:
            unit.pixels = view_pixels(frames, self.preprocess, crops)
        return unit

    def _identity(self, given: _Input) -> str | None:
        """Return the cache key of a file or a part of one; None for other inputs, which are not cached."""
        if self.kept is None or not isinstance(given.video, str):
            return None
        return self.kept.identity(given.video, given.part)

    def _cacheable(self, identity: str | None, frames: Frames, given: _Input) -> str | None:
        """Return the identity if the file was read well and did not change while it was decoded, else None."""
        same = identity is not None and identity == self._identity(given)
        return identity if same and READ_FAILED not in frames.notices else None


class _Input(NamedTuple):
    """An input of the reader: the path of its results, what is read, and the part of it."""

    path: str
    video: str | Stream | Indexed | Frames | LiveFrames
    part: Part | None = None


def _input_of(source: object) -> _Input:
    """Return an input as the decoder takes it.

    Raises:
        VideoError: it is none.
    """
    if isinstance(source, Frames):
        return _Input(str(source.path), source)
    if isinstance(source, LiveFrames):
        return _Input(source.name, source)
    if not isinstance(source, tuple):
        video = as_video(source)
        return _Input(name_of(video), video)
    try:
        given, start, end = cast("tuple[Any, Any, Any]", source)
        start, end = float(start), None if end is None else float(end)
    except (TypeError, ValueError, OverflowError):
        raise VideoError(
            short_name(source), "a part is (video, start, end) in seconds, where end may be None"
        ) from None
    if isinstance(given, Frames | LiveFrames):
        raise VideoError(
            short_name(source), f"{type(given).__name__} have no parts; give the video they come from"
        )
    try:
        video = as_video(given)
    except VideoError as error:
        raise VideoError(short_name(source), error.cause) from error
    return _Input(str(Span(name_of(video), start, end)), video, (start, end))


def _checked_frames(path: str, frames: Frames) -> Frames:
    """Return frames that a user made, as arrays that torch takes; refuse those that do not fit.

    Raises:
        VideoError: their pixels, times and clips do not fit.
    """
    pixels: Any = frames.pixels
    shape, dtype = getattr(pixels, "shape", ()), getattr(pixels, "dtype", None)
    if str(dtype) != "uint8" or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise VideoError(path, f"its frames are {dtype} {list(shape)}, not uint8 [T, H, W, 3]")
    if len(frames.times) != len(pixels) or frames.clips < 1 or len(pixels) % frames.clips:
        counts = f"{len(pixels)} frames, {len(frames.times)} times and {frames.clips} clips"
        raise VideoError(path, f"it has {counts}, which do not fit")
    if any(map(math.isinf, frames.times)):
        raise VideoError(path, "a time of its frames is infinite")
    check_size(path, shape[2], shape[1])
    return replace(frames, path=path, pixels=np.require(pixels, requirements=["C", "W"]))


def decode_views(
    path: Video,
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
    video_error = VideoError(path, str(error) if isinstance(error, OstError) else internal_error(error))
    video_error.__cause__ = error
    return video_error


def _renamed(error: VideoError, path: str) -> VideoError:
    """Return the failure of a part under the name of the part."""
    video_error = VideoError(path, error.cause)
    video_error.__cause__ = error.__cause__
    return video_error


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
