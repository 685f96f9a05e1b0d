"""A video of any length -> its frames at an even rate, in chunks, so that memory stays bounded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ost.archives import Member
from ost.errors import VideoError
from ost.types import Frames, Preprocess
from ost.video.container import demuxed, good_frames, header_seconds, opened, unless_stopped
from ost.video.picture import SIZES_CHANGE, Converter, stacked
from ost.video.place import is_folder, located
from ost.video.sample import ROUNDING, Part, check_part, is_within, nothing_within

if TYPE_CHECKING:
    import numpy as np
    from av import Packet
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FPS = 4.0
CHUNK_FRAMES = 128
SEEK_LEADS = (0, 5, 30)  # seconds before a part, where nothing nearer is a keyframe before it
LEAST_SHARE = 0.95  # of the header's seconds; a file whose pictures end earlier has a notice


class Chunk(NamedTuple):
    """Consecutive frames of a video at an even rate, and whether they are its last."""

    frames: Frames
    last: bool


def decode_chunks(
    path: str | Path,
    *,
    fps: float = FPS,
    chunk_frames: int = CHUNK_FRAMES,
    preprocess: Preprocess | None = None,
    part: Part | None = None,
    skip: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Chunk]:
    """Yield the frames of a video at an even rate, `chunk_frames` at a time.

    A frame is taken if it is the first at or after an instant k / fps, so that none is taken twice, and a part has the
    frames that the whole has there. The file is decoded once, in sequence.

    Args:
        path: a video file, which may lie in a .tar archive.
        fps: frames a second.
        chunk_frames: frames a chunk; the last may have fewer.
        preprocess: scale frames as these weights want them; None keeps the full size.
        part: (start, end) in seconds, to take only frames from `start` up to and without `end`.
        skip: chunks to leave out at the beginning.
        stop: asked at every packet whether to give up.

    Raises:
        VideoError: the file is missing, unreadable, not a video, its frames have no times, or it has no such part.
        Cancelled: `stop` said so.
    """
    name, place = str(path), located(path)
    start, end = part or (0.0, None)
    check_part(name, (start, end))
    if is_folder(place):
        raise VideoError(name, "its frame images have no times, by which to take them at a rate")
    convert, film = Converter(name, preprocess), _Film(name, place, stop or (lambda: False))
    collected, instants, taken = _Collected(name, chunk_frames), Instants(fps), 0
    for seconds, frame in film.frames(start):
        if end is not None and seconds >= end - ROUNDING:
            break
        if not instants.reached(seconds) or not is_within(seconds, (start, end)):
            continue
        taken += 1
        if taken > skip * chunk_frames:
            if collected.full:  # it is known only now that the chunk before is not the last
                yield Chunk(collected.frames(), last=False)
                collected.started = time.perf_counter()
            collected.add(convert(frame), seconds)
    if not taken:
        raise VideoError(name, nothing_within((start, end), film.seconds))
    if collected.times:
        yield Chunk(collected.frames(film.notices() if end is None else ()), last=True)


class Instants:
    """The instants k / fps, which frames that come one after the other reach."""

    def __init__(self, fps: float) -> None:
        self.fps, self.last = fps, -math.inf

    def reached(self, seconds: float) -> bool:
        """Whether a frame at that time is the first at or after an instant; the first of all frames is."""
        before, self.last = self.last, math.floor((seconds + ROUNDING) * self.fps)
        return self.last > before


class _Collected:
    """The frames of a chunk so far."""

    def __init__(self, name: str, chunk_frames: int) -> None:
        self.name, self.chunk_frames = name, chunk_frames
        self.pictures: list[np.ndarray] = []
        self.times: list[float] = []
        self.started = time.perf_counter()

    @property
    def full(self) -> bool:
        """Whether the chunk has all its frames."""
        return len(self.times) == self.chunk_frames

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """Add a frame."""
        self.pictures.append(picture)
        self.times.append(round(seconds, 4))

    def frames(self, notices: tuple[str, ...] = ()) -> Frames:
        """The chunk, which begins anew."""
        if len({picture.shape for picture in self.pictures}) > 1:
            notices = (*notices, SIZES_CHANGE)
        pixels, times, now = stacked(self.pictures), tuple(self.times), time.perf_counter()
        seconds, self.started = now - self.started, now
        self.pictures, self.times = [], []
        return Frames(pixels, times, self.name, decoded=len(times), notices=notices, seconds=seconds)


class _Film:
    """A file as frames with their times, one pass from some time on.

    Attributes:
        seconds: when the last frame was shown, since the first of the file.
        end: when it ends by its own clock, which need not begin at 0.
        claimed: seconds that the header gives.
    """

    def __init__(self, name: str, place: Path | Member, stop: Callable[[], bool]) -> None:
        self.name, self.place, self.stop = name, place, stop
        self.seconds = self.end = self.claimed = 0.0
        self._lacks_times = False

    def frames(self, start: float) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (seconds, frame) from a frame before `start` on, or the first; sought where the file has an index."""
        from av.format import Flags

        with opened(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            self.claimed = header_seconds(container, stream)
            # AVI holds no presentation times: FFmpeg counts packets, in their order in the file.
            self._lacks_times = container.format.name == "avi" and stream.codec_context.has_b_frames
            frames = self._decoded(container, stream)
            first = next(frames, None)
            if first is None:
                raise VideoError(self.name, "no frame of it can be decoded")
            base, origin = stream.time_base or Fraction(1), None if self._lacks_times else first.pts
            # A container without an index lands anywhere, also where decoding cannot begin.
            if start <= 0 or origin is None or container.format.flags & Flags.ts_discont.value:
                yield from self._timed(chain([first], frames), stream, origin)
                return
            for lead in SEEK_LEADS:
                container.seek(origin + int(max(0.0, start - lead) / base), stream=stream, backward=True)
                frames = self._decoded(container, stream)
                hit = next(frames, None)
                if hit is not None and hit.pts is not None and float((hit.pts - origin) * base) < start:
                    yield from self._timed(chain([hit], frames), stream, origin)
                    return
        yield from self.frames(0.0)  # seeking comes nowhere near

    def notices(self) -> tuple[str, ...]:
        """What is to be said of a file that was read to its end."""
        if max(self.seconds, self.end) >= LEAST_SHARE * self.claimed - 1:
            return ()
        return (f"its pictures end at {self.seconds:.1f} s, and its header gives {self.claimed:.1f} s",)

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        return good_frames(unless_stopped(self.name, self._seen(container, stream), self.stop))

    def _seen(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Packets, noting whether one lacks its time: then those of the frames are guesses of the decoder's."""
        for packet in demuxed(container, stream):
            self._lacks_times = self._lacks_times or (packet.size > 0 and packet.pts is None)
            yield packet

    def _timed(
        self, frames: Iterator[VideoFrame], stream: VideoStream, origin: int | None
    ) -> Iterator[tuple[float, VideoFrame]]:
        """Frames with seconds since `origin`; where times fall back or lack, they go on at the frame rate."""
        base, rate = stream.time_base or Fraction(1), float(stream.average_rate or 0)
        last, shift = -math.inf, 0.0
        for i, frame in enumerate(frames):
            seconds = i / rate if origin is None and rate else math.nan
            if origin is not None and frame.pts is not None:
                seconds = float((frame.pts - origin) * base) + shift
                self.end = float(frame.pts * base)
            if not seconds > last:
                if not rate:
                    raise VideoError(self.name, "its frames have no times, by which to take them at a rate")
                shift += 0.0 if math.isnan(seconds) else last + 1 / rate - seconds
                seconds = last + 1 / rate
            self.seconds = last = seconds
            yield seconds, frame
