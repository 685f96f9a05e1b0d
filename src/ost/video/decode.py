"""Decode the sampled frames of a video file; every way in which a file can be broken becomes a `VideoError`.

A file is read twice: first its packets are counted without decoding, which gives the number of frames and so the
indices to sample; then it is decoded, and only the sampled frames are converted. Where the decoder outputs another
number of frames, that number counts and the file is decoded once more.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from ost.errors import UsageError, VideoError
from ost.types import Frames, Preprocess
from ost.video.container import (
    FURTHEST_SEEK,
    READ_FAILED,
    decode_packet,
    demuxed,
    frame_times,
    good_frames,
    header_seconds,
    keyframe_packet,
    open_container,
    packets_from,
    treat_as_end,
    unless_stopped,
)
from ost.video.memory import sample_indexed
from ost.video.picture import SIZES_CHANGE, Converter, stack_pictures
from ost.video.place import Place, Video, as_video, is_folder, is_indexed, located, name_of
from ost.video.sample import (
    Part,
    check_part,
    indices_within,
    is_within,
    reported,
    test_indices,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

T = TypeVar("T")
Sampling = Literal["uniform", "keyframes"]
Pick = Callable[[int], list[int]]
VERSION = "3"  # of decoding, sampling and scaling; a new one invalidates cached embeddings
SAMPLINGS = ("uniform", "keyframes")
MIN_DECODED = 0.5
SEEK_FROM = 1000  # files with fewer frames are decoded in sequence: that is as fast, and always exact


def decoding_version() -> str:
    """Return the versions that pixels depend on: of this code, of FFmpeg's libraries, torch and Pillow."""
    import av

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, v))}" for name, v in sorted(av.library_versions.items())
    )
    return f"{VERSION}; {libraries}; torch {version('torch')}; pillow {version('pillow')}"


@dataclass(frozen=True)
class _Index:
    """What a file's packets tell without decoding.

    Attributes:
        packets: number of packets from the first keyframe on.
        claimed: number of frames that the header states, where the file is truncated; else 0.
        pts: presentation times in order; empty unless every packet has its own.
        keyframes: presentation times of the keyframes.
        broken_off: whether the file ends within a packet.
        times: seconds since the first frame, nan where they are not known.
    """

    packets: int
    claimed: int
    pts: list[int]
    keyframes: list[int]
    broken_off: bool
    times: list[float]


def decode(
    path: Video,
    *,
    frames: int = 32,
    clips: int = 1,
    sampling: Sampling = "uniform",
    preprocess: Preprocess | None = None,
    min_decoded: float = MIN_DECODED,
    pick: Pick | None = None,
    part: Part | None = None,
    stop: Callable[[], bool] | None = None,
) -> Frames:
    """Return the sampled frames of a video.

    Args:
        path: a file of any container and codec that FFmpeg reads, or a folder of images in the order of
            their numbers; in a .tar archive it is addressed as if that were a folder: `videos.tar/run/a.avi`. Or
            any other input: see `ost.video.place.as_video`.
        frames: T, frames a clip.
        clips: clips a video.
        sampling: "uniform" is exact; "keyframes" takes the keyframe at or before each sampled time, which
            reads a long file in a fraction of the time and is approximate.
        preprocess: scale frames for these weights; None keeps the full size.
        min_decoded: share of the expected frames that must come out of the decoder, 0 to 1.
        pick: number of frames -> indices, instead of `test_indices`.
        part: (start, end) in seconds, to sample only frames from `start` up to and without `end`.
        stop: called at every packet; true cancels.

    Raises:
        VideoError: the file is missing, unreadable, not a video, too little of it decodes, or it has no such part.
        Cancelled: `stop` returned true.
        UsageError: a setting is out of range.
    """
    if sampling not in SAMPLINGS:
        raise UsageError(f"there is no sampling {sampling!r}; use {' or '.join(SAMPLINGS)}")
    if not 0 <= min_decoded <= 1:
        raise UsageError(f"min_decoded is a share between 0 and 1, not {min_decoded}")
    started = time.perf_counter()
    chosen = pick or partial(test_indices, frames=frames, clips=clips)
    video = as_video(path)
    name = name_of(video)
    if part is not None:
        check_part(name, part)
    if is_indexed(video):
        result = sample_indexed(video, chosen, preprocess, part)
        if sampling == "keyframes":
            result = replace(
                result, notices=("frames in memory have no keyframes, so it was sampled uniformly",)
            )
    elif is_folder(place := located(video)):
        from ost.video.folder import read_folder

        if part is not None:
            raise VideoError(name, "its frame images have no times, by which a part of it could be taken")
        result = read_folder(Path(name), chosen, preprocess, min_decoded)
    else:
        reader = _Reader(name, place, preprocess, min_decoded, part, stop)
        result = reader.keyframes(frames, clips) if sampling == "keyframes" else reader.uniform(chosen)
    return replace(result, clips=clips, seconds=time.perf_counter() - started)


class _Picture(NamedTuple):
    """One sampled frame: uint8 [H, W, 3] and its time in seconds."""

    pixels: np.ndarray
    seconds: float


class _Reader:
    """Sample the frames of one file, which is opened again for every pass."""

    def __init__(
        self,
        name: str,
        place: Place,
        preprocess: Preprocess | None,
        min_decoded: float,
        part: Part | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.part = part
        self.stop = stop or (lambda: False)
        self.name = name
        self.place = place
        self.min_decoded = min_decoded
        self.convert = Converter(name, preprocess)
        self.io_errors: list[str] = []

    def uniform(self, pick: Pick) -> Frames:
        """Sample exactly: by seeking where a long file is sampled sparsely, else by decoding in sequence."""
        index = self._read_index()
        indices = self._sampled_indices(pick, index.times if self.part else [math.nan] * index.packets)
        pictures: dict[int, _Picture] = {}
        decoded = index.packets
        if _is_sparse(index, indices):
            pictures = self._seek(index, indices)
        if not pictures:
            pictures, times = self._in_sequence(indices)
            if times and (corrected := self._sampled_indices(pick, times)) != indices:
                indices = corrected
                if not all(i in pictures for i in indices):
                    pictures, times = self._in_sequence(indices)
            decoded = len(times)
        notices = self._check_decoded(decoded if pictures else 0, index)
        return self._frames([pictures[_nearest(i, pictures)] for i in indices], decoded, notices)

    def _sampled_indices(self, pick: Pick, times: list[float]) -> list[int]:
        """Return the indices to sample from a file whose frames have these times."""
        if self.part is None:
            return pick(max(1, len(times)))
        inside = indices_within(self.name, times, self.part)
        return [inside[i] for i in pick(len(inside))]

    def keyframes(self, frames: int, clips: int) -> Frames:
        """Sample approximately: read one keyframe for each sampled time, and nothing else of the file."""
        ticks = test_indices(1_000_000, frames, clips)
        with open_container(self.name, self.place) as (container, stream):
            start, end = self.part or (0.0, None)
            end = FURTHEST_SEEK if end is None else min(end, FURTHEST_SEEK)
            first, last = (self._keyframe_at(container, stream, seconds) for seconds in (0.0, end))
            # AVI with B-frames starts a frame after its start time.
            shift = 0.0 if first is None else first.seconds
            # The header of a joined or broken file may state too short a length.
            length = max(header_seconds(container, stream), 0.0 if last is None else last.seconds - shift)
            end = min(end, length)
            pictures = [
                self._keyframe_at(container, stream, start + t * (end - start) / 1e6, shift)
                for t in self._unless_stopped(iter(ticks if start < end else ()))
            ]
        decoded = {i: picture for i, picture in enumerate(pictures) if picture is not None}
        usable = {i: p for i, p in decoded.items() if self.part is None or is_within(p.seconds, self.part)}
        distinct = len({picture.seconds for picture in usable.values()})
        if distinct < min(2, len(ticks)):
            sampled = self.uniform(partial(test_indices, frames=frames, clips=clips))
            where = "no two keyframes" if self.part is None else "no two keyframes of the part"
            notice = f"{where} could be sought, so it was sampled uniformly"
            return replace(sampled, notices=(*sampled.notices, notice))
        if len(decoded) < self.min_decoded * len(pictures):
            raise VideoError(self.name, f"only {len(decoded)} of {len(pictures)} keyframes looked for decode")
        notices = (
            () if len(decoded) == len(pictures) else (f"{len(decoded)} of {len(pictures)} keyframes decode",)
        )
        if distinct <= len(pictures) // 2:
            notices = (*notices, f"only {distinct} different keyframes for {len(pictures)} frames")
        return self._frames([usable[_nearest(i, usable)] for i in range(len(pictures))], distinct, notices)

    def _keyframe_at(
        self, container: InputContainer, stream: VideoStream, seconds: float, shift: float = 0.0
    ) -> _Picture | None:
        """Return the keyframe at or before that time; None if there is none or it does not decode.

        Times count from `shift` seconds after the start time of the stream.
        """
        from av.error import FFmpegError

        start, base = stream.start_time or 0, stream.time_base or Fraction(1)
        try:
            packet = keyframe_packet(container, stream, start + int((seconds + shift) / base))
            # Drained at once: with B-frames the decoder would wait for more packets.
            frames = [*decode_packet(packet), *stream.codec_context.decode(None)] if packet else []
        except FFmpegError as error:
            treat_as_end(error, self.io_errors)
            return None
        except OverflowError:
            return None
        for frame in frames:
            if not frame.is_corrupt and frame.pts is not None:
                return _Picture(self.convert(frame), float((frame.pts - start) * base) - shift)
        return None

    def _read_index(self) -> _Index:
        """Count packets without decoding them."""
        from av.error import FFmpegError

        pts: list[int | None] = []
        keyframes: list[int] = []
        ends = dict[int, int]()
        broken_off = False
        with open_container(self.name, self.place) as (container, stream):
            try:
                for packet in self._unless_stopped(demuxed(container)):
                    end = (packet.pts or 0) + (packet.duration or 0)
                    ends[packet.stream_index] = max(end, ends.get(packet.stream_index, 0))
                    if packet.stream_index == stream.index and packet.size and not packet.is_discard:
                        pts.append(packet.pts)
                        broken_off = packet.is_corrupt
                        if packet.is_keyframe and packet.pts is not None:
                            keyframes.append(packet.pts)
            except FFmpegError as error:
                treat_as_end(error, self.io_errors)
                broken_off = True
            broken_off = broken_off or _ends_early(container, ends)
            claimed = _header_frames(container, stream) if broken_off else 0
            first = min(keyframes, default=-math.inf)
            known = sorted({p for p in pts if p is not None})
            # Where recordings were joined, keyframes fall back, and times tell no order of frames.
            complete = len(known) == len(pts) and keyframes == sorted(keyframes)
            shown = [p for p in known if p >= first] if complete else []
            times = frame_times(shown or [None] * len(pts), stream) if self.part else []
        return _Index(len(shown) or len(pts), claimed, shown, sorted(keyframes), broken_off, times)

    def _in_sequence(self, indices: list[int]) -> tuple[dict[int, _Picture], list[float]]:
        """Decode all frames in order; return the sampled ones by index, and the times of all."""
        sampled = set(indices)
        converted: dict[int, np.ndarray] = {}
        pts: list[int | None] = []
        with open_container(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            packets = self._unless_stopped(demuxed(container, stream))
            for i, frame in enumerate(good_frames(packets, self.io_errors)):
                pts.append(frame.pts)
                if i in sampled:
                    converted[i] = self.convert(frame)
            times = frame_times(pts, stream)
        return {i: _Picture(pixels, times[i]) for i, pixels in converted.items()}, times

    def _seek(self, index: _Index, indices: list[int]) -> dict[int, _Picture]:
        """Return the sampled frames by seeking to the keyframe before each; empty if a seek misses its frame."""
        pictures: dict[int, _Picture] = {}
        with open_container(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            times = frame_times(index.pts, stream)
            position, frames = -1, iter(())
            for i in sorted(set(indices)):
                keyframe = index.keyframes[bisect_right(index.keyframes, index.pts[i]) - 1]
                first = bisect_left(index.pts, keyframe)
                if first > position:
                    frames = enumerate(self._frames_from(container, stream, keyframe), start=first)
                sought = next((frame for j, frame in self._unless_stopped(frames) if j == i), None)
                if sought is None or sought.pts != index.pts[i]:
                    return {}
                position = i
                pictures[i] = _Picture(self.convert(sought), times[i])
        return pictures

    def _frames_from(
        self, container: InputContainer, stream: VideoStream, keyframe: int
    ) -> Iterator[VideoFrame]:
        """Return frames from a keyframe on, without those that are decoded after it but shown before it."""
        frames = good_frames(packets_from(container, stream, keyframe), self.io_errors)
        return (frame for frame in frames if frame.pts is None or frame.pts >= keyframe)

    def _unless_stopped(self, steps: Iterator[T]) -> Iterator[T]:
        return unless_stopped(self.name, steps, self.stop)

    def _check_decoded(self, decoded: int, index: _Index) -> tuple[str, ...]:
        """Refuse a file of which too few frames decode, and return a notice where some are missing."""
        if decoded == 0:
            raise VideoError(self.name, "no frame of it can be decoded")
        expected = max(index.packets, index.claimed, decoded)
        if decoded < self.min_decoded * expected:
            raise VideoError(
                self.name,
                f"only {decoded} of {expected} frames can be decoded, "
                f"less than the share of {self.min_decoded:g} that is asked for",
            )
        if decoded < expected:
            return (f"{decoded} of {expected} frames could be decoded",)
        return ("the file breaks off before its end",) if index.broken_off else ()

    def _frames(self, pictures: list[_Picture], decoded: int, notices: tuple[str, ...]) -> Frames:
        if len({picture.pixels.shape for picture in pictures}) > 1:
            notices = (*notices, SIZES_CHANGE)
        if self.io_errors:
            notices = (*notices, READ_FAILED)
        return Frames(
            pixels=stack_pictures([picture.pixels for picture in pictures]),
            times=tuple(reported(picture.seconds) for picture in pictures),
            path=self.name,
            decoded=decoded,
            notices=notices,
        )


def _is_sparse(index: _Index, indices: list[int]) -> bool:
    """Return whether seeking pays: the file is long and has more keyframes than sampled frames."""
    return len(index.pts) >= SEEK_FROM and len(index.keyframes) > max(1, len(set(indices)))


def _nearest(i: int, pictures: dict[int, _Picture]) -> int:
    return i if i in pictures else min(pictures, key=lambda j: abs(j - i))


def _ends_early(container: InputContainer, ends: dict[int, int]) -> bool:
    """Return whether the last audio and video packets come well before the end that the header states.

    Only for Matroska, where FFmpeg does not report a truncated file; in other containers it raises an error.
    """
    seconds = max((end * (container.streams[i].time_base or 0) for i, end in ends.items()), default=0)
    return "matroska" in container.format.name and seconds < 0.95 * (container.duration or 0) / 1e6


def _header_frames(container: InputContainer, stream: VideoStream) -> int:
    """Return the number of frames that the header states; Matroska states only the duration."""
    if stream.frames or "matroska" not in container.format.name:
        return stream.frames
    return round(header_seconds(container, stream) * float(stream.average_rate or 0))
