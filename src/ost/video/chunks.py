"""Decode a video of any length at an even frame rate, in chunks, so that memory stays bounded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ost.errors import VideoError
from ost.types import Frames, Preprocess
from ost.video.container import (
    FURTHEST_SEEK,
    READ_FAILED,
    can_seek,
    demuxed,
    good_frames,
    header_seconds,
    open_container,
    unless_stopped,
)
from ost.video.memory import Indexed, frames_at, timed_indices
from ost.video.picture import SIZES_CHANGE, Converter, stack_pictures
from ost.video.place import Place, Video, as_video, is_folder, is_indexed, located, name_of
from ost.video.sample import ROUNDING, Part, check_part, is_before, is_within, nothing_within, reported

if TYPE_CHECKING:
    import numpy as np
    from av import Packet
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FPS = 4.0
CHUNK_FRAMES = 128
MOST_ROUNDING = 0.0005  # seconds, half a millisecond
# Seconds before a part to seek to; the next is tried where seeking lands after the start of the part.
SEEK_LEADS = (0, 5, 30)
LEAST_SHARE = 0.95  # of the header's duration; a file whose pictures end earlier gets a notice


class Chunk(NamedTuple):
    """Consecutive frames of a video at an even rate, and whether the video ends with them."""

    frames: Frames
    last: bool


def decode_chunks(
    path: Video,
    *,
    fps: float = FPS,
    chunk_frames: int = CHUNK_FRAMES,
    preprocess: Preprocess | None = None,
    part: Part | None = None,
    skip: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Chunk]:
    """Yield the frames of a video at an even rate, `chunk_frames` at a time.

    A frame is taken if it is the first at or after an instant k / fps. So none is taken twice, and a part has the same
    frames as that stretch of the whole video. The file is decoded once, in sequence; only a part that seeking does not
    find is looked for by decoding from the beginning.

    Args:
        path: a video file, which may lie in a .tar archive, or any other input: see `ost.video.place.as_video`.
        fps: frames a second.
        chunk_frames: frames a chunk; the last may have fewer.
        preprocess: scale frames for these weights; None keeps the full size.
        part: (start, end) in seconds, to take only frames from `start` up to and without `end`.
        skip: number of chunks to leave out at the beginning.
        stop: called at every packet; true cancels.

    Raises:
        VideoError: the file is missing, unreadable, not a video, its frames have no times, or it has no such part.
        Cancelled: `stop` returned true.
    """
    video = as_video(path)
    name = name_of(video)
    start, end = part or (0.0, None)
    check_part(name, (start, end))
    if is_indexed(video):
        yield from _indexed_chunks(video, fps, chunk_frames, preprocess, (start, end), skip)
        return
    if is_folder(place := located(video)):
        raise VideoError(name, "its frame images have no times, by which to take them at a rate")
    convert, decoder = Converter(name, preprocess), _TimedDecoder(name, place, stop or (lambda: False))
    buffer, instants, taken = _ChunkBuffer(name, chunk_frames), Instants(fps), 0
    for seconds, frame in decoder.frames_of((start, end)):
        if not instants.reached(seconds, decoder.rounding) or not is_within(seconds, (start, end)):
            continue
        taken += 1
        if taken > skip * chunk_frames:
            if buffer.full:  # only now is it known that this chunk is not the last
                yield Chunk(buffer.frames(), last=False)
                buffer.started = time.perf_counter()
            buffer.add(convert(frame), seconds)
    if not taken:
        raise VideoError(name, nothing_within((start, end), decoder.seconds))
    if buffer.times:
        yield Chunk(buffer.frames(decoder.notices(whole=end is None)), last=True)


def _indexed_chunks(
    video: Indexed, fps: float, chunk_frames: int, preprocess: Preprocess | None, part: Part, skip: int
) -> Iterator[Chunk]:
    """Yield the chunks of frames in memory."""
    instants = Instants(fps)
    timed = [(seconds, i) for seconds, i in timed_indices(video) if instants.reached(seconds)]
    indices = [i for seconds, i in timed if is_within(seconds, part)]
    if not indices:
        raise VideoError(video.name, nothing_within(part, video.times[-1]))
    for start in range(skip * chunk_frames, len(indices), chunk_frames):
        end = start + chunk_frames
        yield Chunk(frames_at(video, indices[start:end], preprocess), last=end >= len(indices))


class Instants:
    """The instants k / fps, and the last one that the frames so far have reached."""

    def __init__(self, fps: float) -> None:
        self.fps, self.last = fps, -math.inf

    def reached(self, seconds: float, rounding: float = ROUNDING) -> bool:
        """Return whether a frame at that time is the first at or after an instant; the first frame of all always is."""
        before, self.last = self.last, math.floor((seconds + rounding) * self.fps)
        return self.last > before


class _ChunkBuffer:
    """Collect the frames of a chunk."""

    def __init__(self, name: str, chunk_frames: int) -> None:
        self.name, self.chunk_frames = name, chunk_frames
        self.pictures: list[np.ndarray] = []
        self.times: list[float] = []
        self.started = time.perf_counter()

    @property
    def full(self) -> bool:
        """Return whether the chunk has all its frames."""
        return len(self.times) == self.chunk_frames

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """Add a frame."""
        self.pictures.append(picture)
        self.times.append(reported(seconds))

    def frames(self, notices: tuple[str, ...] = ()) -> Frames:
        """Return the collected frames, and start the next chunk."""
        if len({picture.shape for picture in self.pictures}) > 1:
            notices = (*notices, SIZES_CHANGE)
        pixels, times, now = stack_pictures(self.pictures), tuple(self.times), time.perf_counter()
        seconds, self.started = now - self.started, now
        self.pictures, self.times = [], []
        return Frames(pixels, times, self.name, decoded=len(times), notices=notices, seconds=seconds)


class _TimedDecoder:
    """Decode a file into frames with their times, in one pass from a start time on.

    Attributes:
        seconds: time of the last frame, since the first frame of the file.
        end: time of the last frame by the clock of the file, which need not start at 0.
        rounding: seconds by which a time may lie before the instant that it means.
        claimed: duration in seconds that the header states.
    """

    def __init__(self, name: str, place: Place, stop: Callable[[], bool]) -> None:
        self.name, self.place, self.stop = name, place, stop
        self.seconds = self.end = self.claimed = 0.0
        self.rounding = ROUNDING
        self._lacks_times = self._sought = False
        self._io_errors: list[str] = []

    def frames_of(self, part: Part) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (seconds, frame) from a frame before a part, or the first, up to the end of the part."""
        start, end = part
        for origin in (start, 0.0):
            reached = False
            for seconds, frame in self._frames_from(origin):
                if end is not None and not is_before(seconds, end):
                    break
                reached = reached or is_within(seconds, part)
                yield seconds, frame
            # Where recordings were joined, seeking can miss the part.
            if reached or not self._sought:
                return

    def _frames_from(self, start: float) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (seconds, frame) from a frame before `start` or the first on; seek where the file has an index."""
        from av.format import Flags

        with open_container(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            self._sought = False
            self.claimed = header_seconds(container, stream)
            # Containers that count milliseconds date a frame of 33.3 ms at 33.
            self.rounding = min(MOST_ROUNDING, max(ROUNDING, float(stream.time_base or 0) / 2))
            # AVI stores no presentation times: FFmpeg counts packets in file order, which B-frames make wrong.
            self._lacks_times = container.format.name == "avi" and stream.codec_context.has_b_frames
            frames = self._decoded(container, stream)
            first = next(frames, None)
            if first is None:
                raise VideoError(self.name, "no frame of it can be decoded")
            base, origin = stream.time_base or Fraction(1), None if self._lacks_times else first.pts
            # Seeking without an index can land anywhere, also where decoding cannot start; and after the end that the
            # header states, in another of several joined recordings.
            unsure = container.format.flags & Flags.ts_discont.value or start >= self.claimed > 0
            if start <= 0 or origin is None or unsure:
                yield from self._with_times(chain([first], frames), stream, origin)
                return
            for lead in SEEK_LEADS:
                target = min(max(0.0, start - lead), FURTHEST_SEEK)
                if not can_seek(container, stream, origin + int(target / base)):
                    continue
                frames = self._decoded(container, stream)
                sought = next(frames, None)
                if (
                    sought is not None
                    and sought.pts is not None
                    and is_before(float((sought.pts - origin) * base), start)
                ):
                    self._sought = True
                    yield from self._with_times(chain([sought], frames), stream, origin)
                    return
        yield from self._frames_from(0.0)  # every seek landed after the start

    def notices(self, *, whole: bool) -> tuple[str, ...]:
        """Return the notices of a file that was read, as a whole up to its end."""
        notices = (READ_FAILED,) if self._io_errors else ()
        if whole and max(self.seconds, self.end) < LEAST_SHARE * self.claimed - 1:
            length = f"its pictures end at {self.seconds:.1f} s, and its header gives {self.claimed:.1f} s"
            notices = (*notices, length)
        return notices

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        packets = unless_stopped(self.name, self._packets(container, stream), self.stop)
        return good_frames(packets, self._io_errors)

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Yield packets, and note whether one has no time: the decoder then only guesses the times of frames."""
        for packet in demuxed(container, stream):
            self._lacks_times = self._lacks_times or (packet.size > 0 and packet.pts is None)
            yield packet

    def _with_times(
        self, frames: Iterator[VideoFrame], stream: VideoStream, origin: int | None
    ) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (seconds since `origin`, frame); where times fall back or are missing, continue at the frame rate."""
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
