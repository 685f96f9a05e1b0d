"""A video file in, the sampled frames out; every way a video can be broken ends here, in a `VideoError`.

A file is read twice: its packets are counted without decoding, which tells how many frames there are and so
which ones to keep; then it is decoded, and only those are converted. Where the decoder disagrees with the
count, its own count holds and the file is decoded once more.
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

from ost.archives import Member
from ost.errors import UsageError, VideoError
from ost.types import Frames, Preprocess
from ost.video.container import (
    decode_packet,
    demuxed,
    frame_times,
    good_frames,
    header_seconds,
    is_passing,
    keyframe_packet,
    opened,
    packets_from,
    unless_stopped,
)
from ost.video.picture import SIZES_CHANGE, Converter, stacked
from ost.video.place import is_folder, located
from ost.video.sample import Part, check_part, indices_within, is_within, nothing_within, test_indices

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

T = TypeVar("T")
Sampling = Literal["uniform", "keyframes"]
Pick = Callable[[int], list[int]]
VERSION = "1"  # of decoding, sampling and scaling here; a new one leaves kept embeddings unread
SAMPLINGS = ("uniform", "keyframes")
MIN_DECODED = 0.5
SEEK_FROM = 1000  # files with fewer frames are decoded in sequence: it is as fast, and always exact


def decoding_version() -> str:
    """What pixels depend on besides the file and the settings: this code, FFmpeg's libraries and torch's resizing."""
    import av

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, v))}" for name, v in sorted(av.library_versions.items())
    )
    return f"{VERSION}; {libraries}; torch {version('torch')}; pillow {version('pillow')}"


@dataclass(frozen=True)
class _Index:
    """What the packets tell without being decoded.

    Attributes:
        packets: how many there are, from the first keyframe on.
        claimed: how many the header promises, where the file breaks off; else 0.
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
    path: str | Path,
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
    """The sampled frames of a video file, or of a folder of frame images; either may lie in a .tar archive.

    Args:
        path: a file of any container and codec that FFmpeg reads, or a folder of images in the order of
            their numbers. In an archive it is addressed as if that were a folder: `videos.tar/run/a.avi`.
        frames: T, frames a clip.
        clips: clips a video.
        sampling: "uniform" is exact; "keyframes" takes the keyframe at or before each wanted time, which
            reads a long file in a fraction of the time and is approximate.
        preprocess: scale frames as these weights want them; None keeps the full size.
        min_decoded: share of the expected frames that must come out of the decoder, 0 to 1.
        pick: number of frames -> indices, instead of `test_indices`.
        part: (start, end) in seconds, to sample only frames from `start` up to and without `end`.
        stop: asked at every packet whether to give up.

    Raises:
        VideoError: the file is missing, unreadable, not a video, too little of it decodes, or it has no such part.
        Cancelled: `stop` said so.
        UsageError: a setting is out of range.
    """
    if sampling not in SAMPLINGS:
        raise UsageError(f"there is no sampling {sampling!r}; use {' or '.join(SAMPLINGS)}")
    if not 0 <= min_decoded <= 1:
        raise UsageError(f"min_decoded is a share between 0 and 1, not {min_decoded}")
    started = time.perf_counter()
    chosen = pick or partial(test_indices, frames=frames, clips=clips)
    name, place = str(path), located(path)
    if part is not None:
        check_part(name, part)
    if is_folder(place):
        from ost.video.folder import read_folder

        if part is not None:
            raise VideoError(name, "its frame images have no times, by which a part of it could be taken")
        result = read_folder(Path(path), chosen, preprocess, min_decoded)
    else:
        reader = _Reader(name, place, preprocess, min_decoded, part, stop)
        result = reader.keyframes(frames, clips) if sampling == "keyframes" else reader.uniform(chosen)
    return replace(result, clips=clips, seconds=time.perf_counter() - started)


class _Picture(NamedTuple):
    """One sampled frame: uint8 [H, W, 3] and its time in seconds."""

    pixels: np.ndarray
    seconds: float


class _Reader:
    """One file and how its frames are wanted; opens the file anew for every pass."""

    def __init__(
        self,
        name: str,
        place: Path | Member,
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

    def uniform(self, pick: Pick) -> Frames:
        """Exact sampling: by seeking where frames are wanted sparsely from a long file, else in sequence."""
        index = self._read_index()
        wanted = self._wanted(pick, index.times if self.part else [math.nan] * index.packets)
        found: dict[int, _Picture] = {}
        decoded = index.packets
        if _is_sparse(index, wanted):
            found = self._seek(index, wanted)
        if not found:
            found, times = self._in_sequence(wanted)
            if times and (truly := self._wanted(pick, times)) != wanted:
                wanted = truly
                if not all(i in found for i in wanted):
                    found, times = self._in_sequence(wanted)
            decoded = len(times)
        notices = self._judge(decoded if found else 0, index)
        return self._frames([found[_nearest(i, found)] for i in wanted], decoded, notices)

    def _wanted(self, pick: Pick, times: list[float]) -> list[int]:
        """The indices to sample of a file whose frames have these times."""
        if self.part is None:
            return pick(max(1, len(times)))
        inside = indices_within(self.name, times, self.part)
        return [inside[i] for i in pick(len(inside))]

    def keyframes(self, frames: int, clips: int) -> Frames:
        """Approximate sampling: one keyframe for each wanted time, the rest of the file left unread."""
        wanted = test_indices(1_000_000, frames, clips)
        with opened(self.name, self.place) as (container, stream):
            start, end = self._clamped(header_seconds(container, stream))
            pictures = [
                self._keyframe_at(container, stream, start + t * (end - start) / 1e6)
                for t in self._unless_stopped(iter(wanted))
            ]
        found = {i: picture for i, picture in enumerate(pictures) if picture is not None}
        seen = {i: p for i, p in found.items() if self.part is None or is_within(p.seconds, self.part)}
        distinct = len({picture.seconds for picture in seen.values()})
        if distinct < min(2, len(pictures)):
            sampled = self.uniform(partial(test_indices, frames=frames, clips=clips))
            where = "no two keyframes" if self.part is None else "no two keyframes of the part"
            notice = f"{where} could be sought, so it was sampled uniformly"
            return replace(sampled, notices=(*sampled.notices, notice))
        if len(found) < self.min_decoded * len(pictures):
            raise VideoError(self.name, f"only {len(found)} of {len(pictures)} keyframes looked for decode")
        notices = (
            () if len(found) == len(pictures) else (f"{len(found)} of {len(pictures)} keyframes decode",)
        )
        if distinct <= len(pictures) // 2:
            notices = (*notices, f"only {distinct} different keyframes for {len(pictures)} frames")
        return self._frames([seen[_nearest(i, seen)] for i in range(len(pictures))], distinct, notices)

    def _clamped(self, length: float) -> tuple[float, float]:
        """The seconds to sample of a file that is so long."""
        start, end = self.part or (0.0, None)
        if start >= length > 0:
            raise VideoError(self.name, nothing_within((start, end), length))
        return start, min(length, math.inf if end is None else end)

    def _keyframe_at(self, container: InputContainer, stream: VideoStream, seconds: float) -> _Picture | None:
        """The keyframe at or before that time; None if there is none or it does not decode."""
        from av.error import FFmpegError

        start, base = stream.start_time or 0, stream.time_base or Fraction(1)
        try:
            packet = keyframe_packet(container, stream, start + int(seconds / base))
            # Drained at once: with B-frames the decoder would wait for keyframes to come.
            frames = [*decode_packet(packet), *stream.codec_context.decode(None)] if packet else []
        except (FFmpegError, OverflowError):
            return None
        for frame in frames:
            if not frame.is_corrupt and frame.pts is not None:
                return _Picture(self.convert(frame), float((frame.pts - start) * base))
        return None

    def _read_index(self) -> _Index:
        """Count packets without decoding them."""
        from av.error import FFmpegError

        pts: list[int | None] = []
        keyframes: list[int] = []
        ends = dict[int, int]()
        broken_off = False
        with opened(self.name, self.place) as (container, stream):
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
                if is_passing(error):
                    raise
                broken_off = True
            broken_off = broken_off or _ends_early(container, ends)
            claimed = _claimed(container, stream) if broken_off else 0
            first = min(keyframes, default=-math.inf)
            known = sorted({p for p in pts if p is not None})
            complete = len(known) == len(pts)
            shown = [p for p in known if p >= first] if complete else []
            times = frame_times(shown or [None] * len(pts), stream) if self.part else []
        return _Index(len(shown) or len(pts), claimed, shown, sorted(keyframes), broken_off, times)

    def _in_sequence(self, wanted: list[int]) -> tuple[dict[int, _Picture], list[float]]:
        """Decode from first to last frame; the wanted ones by index, and the times of all."""
        keep = set(wanted)
        kept: dict[int, np.ndarray] = {}
        pts: list[int | None] = []
        with opened(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            for i, frame in enumerate(good_frames(self._unless_stopped(demuxed(container, stream)))):
                pts.append(frame.pts)
                if i in keep:
                    kept[i] = self.convert(frame)
            times = frame_times(pts, stream)
        return {i: _Picture(pixels, times[i]) for i, pixels in kept.items()}, times

    def _seek(self, index: _Index, wanted: list[int]) -> dict[int, _Picture]:
        """The wanted frames by seeking to the keyframe before each; empty if one is not in its place."""
        found: dict[int, _Picture] = {}
        with opened(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            times = frame_times(index.pts, stream)
            position, frames = -1, iter(())
            for i in sorted(set(wanted)):
                keyframe = index.keyframes[bisect_right(index.keyframes, index.pts[i]) - 1]
                first = bisect_left(index.pts, keyframe)
                if first > position:
                    frames = enumerate(_shown_from(container, stream, keyframe), start=first)
                hit = next((frame for j, frame in self._unless_stopped(frames) if j == i), None)
                if hit is None or hit.pts != index.pts[i]:
                    return {}
                position = i
                found[i] = _Picture(self.convert(hit), times[i])
        return found

    def _unless_stopped(self, steps: Iterator[T]) -> Iterator[T]:
        return unless_stopped(self.name, steps, self.stop)

    def _judge(self, decoded: int, index: _Index) -> tuple[str, ...]:
        """Refuse a file of which too little decodes, and say so where a part is missing."""
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
        return Frames(
            pixels=stacked([picture.pixels for picture in pictures]),
            times=tuple(round(picture.seconds, 4) for picture in pictures),
            path=self.name,
            decoded=decoded,
            notices=notices,
        )


def _is_sparse(index: _Index, wanted: list[int]) -> bool:
    """Whether seeking pays: a long file whose wanted frames lie further apart than its keyframes."""
    return len(index.pts) >= SEEK_FROM and len(index.keyframes) > max(1, len(set(wanted)))


def _nearest(i: int, found: dict[int, _Picture]) -> int:
    return i if i in found else min(found, key=lambda j: abs(j - i))


def _ends_early(container: InputContainer, ends: dict[int, int]) -> bool:
    """Whether the last sound and picture come well before the end that the header tells.

    Only for Matroska: there FFmpeg takes a file that breaks off for one that ends, elsewhere it complains.
    """
    seconds = max((end * (container.streams[i].time_base or 0) for i, end in ends.items()), default=0)
    return "matroska" in container.format.name and seconds < 0.95 * (container.duration or 0) / 1e6


def _claimed(container: InputContainer, stream: VideoStream) -> int:
    """The number of frames that the header tells; Matroska tells only how long the film is."""
    if stream.frames or "matroska" not in container.format.name:
        return stream.frames
    return round(header_seconds(container, stream) * float(stream.average_rate or 0))


def _shown_from(container: InputContainer, stream: VideoStream, keyframe: int) -> Iterator[VideoFrame]:
    """Frames from a keyframe on, without those that are decoded after it and shown before it."""
    frames = good_frames(packets_from(container, stream, keyframe))
    return (frame for frame in frames if frame.pts is None or frame.pts >= keyframe)
