"""A video file in, the sampled frames out; every way a video can be broken ends here, in a `VideoError`.

A file is read twice: its packets are counted without decoding, which tells how many frames there are and so
which ones to keep; then it is decoded, and only those are converted. Where the decoder disagrees with the
count, its own count holds and the file is decoded once more.
"""

from __future__ import annotations

import math
import stat
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from ost.archives import Member, find_member, member_folder, members, within
from ost.errors import UsageError, VideoError
from ost.types import Frames, Preprocess
from ost.video.container import decode_packet, demuxed, good_frames, keyframe_packet, opened, packets_from
from ost.video.picture import Converter, stacked
from ost.video.sample import test_indices

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

T = TypeVar("T")
Sampling = Literal["uniform", "keyframes"]
Pick = Callable[[int], list[int]]
SAMPLINGS = ("uniform", "keyframes")
MIN_DECODED = 0.5
SEEK_FROM = 1000  # files with fewer frames are decoded in sequence: it is as fast, and always exact


class Cancelled(Exception):
    """A video was given up because nobody waits for it any more."""


@dataclass(frozen=True)
class _Index:
    """What the packets tell without being decoded.

    Attributes:
        packets: how many there are, from the first keyframe on.
        claimed: how many the header promises, where the file breaks off; else 0.
        pts: presentation times in order; empty unless every packet has its own.
        keyframes: those of the keyframes.
        broken_off: whether the file ends within a packet.
    """

    packets: int
    claimed: int
    pts: list[int]
    keyframes: list[int]
    broken_off: bool


def decode(
    path: str | Path,
    *,
    frames: int = 32,
    clips: int = 1,
    sampling: Sampling = "uniform",
    preprocess: Preprocess | None = None,
    min_decoded: float = MIN_DECODED,
    pick: Pick | None = None,
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
        stop: asked at every packet whether to give up.

    Raises:
        VideoError: the file is missing, unreadable, not a video, or too little of it decodes.
        Cancelled: `stop` said so.
        UsageError: a setting is out of range.
    """
    if sampling not in SAMPLINGS:
        raise UsageError(f"there is no sampling {sampling!r}; use {' or '.join(SAMPLINGS)}")
    if not 0 <= min_decoded <= 1:
        raise UsageError(f"min_decoded is a share between 0 and 1, not {min_decoded}")
    started = time.perf_counter()
    chosen = pick or partial(test_indices, frames=frames, clips=clips)
    name, place = str(path), Path(path)
    member = find_member(place)
    if member is None:
        _check_readable(name, place)
    elif member.size == 0:
        raise VideoError(name, "the archive breaks off before it")
    if member is None and (place.is_dir() or member_folder(place) is not None):
        from ost.video.folder import read_folder

        result = read_folder(place, chosen, preprocess, min_decoded)
    else:
        reader = _Reader(name, member or place, preprocess, min_decoded, stop)
        result = reader.keyframes(frames, clips) if sampling == "keyframes" else reader.uniform(chosen)
    return replace(result, clips=clips, seconds=time.perf_counter() - started)


def _check_readable(name: str, place: Path) -> None:
    try:
        mode = place.stat().st_mode
        if stat.S_ISDIR(mode):
            return
        if not stat.S_ISREG(mode):  # a pipe would let us wait for ever
            raise VideoError(name, "it is neither a file nor a folder")
        with place.open("rb") as file:
            if not file.read(1):
                raise VideoError(name, "the file is empty")
    except (FileNotFoundError, NotADirectoryError) as error:
        if found := within(place):
            if member_folder(place) is not None:
                return
            broken = members(found[0]).broken
            cause = "there is no such file in the archive"
            raise VideoError(
                name, f"{cause}, of which not all can be read: {broken}" if broken else cause
            ) from error
        raise VideoError(name, "there is no such file") from error
    except PermissionError as error:
        raise VideoError(name, "no permission to read it") from error
    except OSError as error:
        raise VideoError(name, f"it cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL in the name
        raise VideoError(repr(name), "that is not a file name") from error


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
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.stop = stop or (lambda: False)
        self.name = name
        self.place = place
        self.min_decoded = min_decoded
        self.convert = Converter(name, preprocess)

    def uniform(self, pick: Pick) -> Frames:
        """Exact sampling: by seeking where frames are wanted sparsely from a long file, else in sequence."""
        index = self._read_index()
        wanted = pick(max(1, index.packets))
        found: dict[int, _Picture] = {}
        decoded = index.packets
        if _is_sparse(index, wanted):
            found = self._seek(index, wanted)
        if not found:
            found, decoded = self._in_sequence(wanted)
            if decoded and pick(decoded) != wanted:
                wanted = pick(decoded)
                if not all(i in found for i in wanted):
                    found, decoded = self._in_sequence(wanted)
        notices = self._judge(decoded if found else 0, index)
        return self._frames([found[_nearest(i, found)] for i in wanted], decoded, notices)

    def keyframes(self, frames: int, clips: int) -> Frames:
        """Approximate sampling: one keyframe for each wanted time, the rest of the file left unread."""
        wanted = test_indices(1_000_000, frames, clips)
        with opened(self.name, self.place) as (container, stream):
            duration = _duration(container, stream)
            pictures = [
                self._keyframe_at(container, stream, t * duration / 1e6)
                for t in self._unless_stopped(iter(wanted))
            ]
        seen = {i: picture for i, picture in enumerate(pictures) if picture is not None}
        distinct = len({picture.seconds for picture in seen.values()})
        if distinct < min(2, len(pictures)):
            sampled = self.uniform(partial(test_indices, frames=frames, clips=clips))
            notice = "no two keyframes could be sought, so it was sampled uniformly"
            return replace(sampled, notices=(*sampled.notices, notice))
        if len(seen) < self.min_decoded * len(pictures):
            raise VideoError(self.name, f"only {len(seen)} of {len(pictures)} keyframes looked for decode")
        notices = () if len(seen) == len(pictures) else (f"{len(seen)} of {len(pictures)} keyframes decode",)
        if distinct <= len(pictures) // 2:
            notices = (*notices, f"only {distinct} different keyframes for {len(pictures)} frames")
        return self._frames([seen[_nearest(i, seen)] for i in range(len(pictures))], distinct, notices)

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
            except FFmpegError:
                broken_off = True
            broken_off = broken_off or _ends_early(container, ends)
            claimed = _claimed(container, stream) if broken_off else 0
        first = min(keyframes, default=-math.inf)
        known = sorted({p for p in pts if p is not None})
        complete = len(known) == len(pts)
        shown = [p for p in known if p >= first] if complete else []
        return _Index(len(shown) or len(pts), claimed, shown, sorted(keyframes), broken_off)

    def _in_sequence(self, wanted: list[int]) -> tuple[dict[int, _Picture], int]:
        """Decode from first to last frame; the wanted ones by index, and how many there were."""
        keep, count = set(wanted), 0
        kept: dict[int, np.ndarray] = {}
        pts: list[int | None] = []
        with opened(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            for count, frame in enumerate(
                good_frames(self._unless_stopped(demuxed(container, stream))), start=1
            ):
                pts.append(frame.pts)
                if count - 1 in keep:
                    kept[count - 1] = self.convert(frame)
            times = _times(pts, stream)
        return {i: _Picture(pixels, times[i]) for i, pixels in kept.items()}, count

    def _seek(self, index: _Index, wanted: list[int]) -> dict[int, _Picture]:
        """The wanted frames by seeking to the keyframe before each; empty if one is not in its place."""
        found: dict[int, _Picture] = {}
        with opened(self.name, self.place) as (container, stream):
            stream.thread_type = "AUTO"
            times = _times(index.pts, stream)
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
        for step in steps:
            if self.stop():
                raise Cancelled(self.name)
            yield step

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
            notices = (*notices, "the picture changes its size; all frames are stretched to the first one's")
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


def _duration(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0


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
    return round(_duration(container, stream) * float(stream.average_rate or 0))


def _shown_from(container: InputContainer, stream: VideoStream, keyframe: int) -> Iterator[VideoFrame]:
    """Frames from a keyframe on, without those that are decoded after it and shown before it."""
    frames = good_frames(packets_from(container, stream, keyframe))
    return (frame for frame in frames if frame.pts is None or frame.pts >= keyframe)


def _times(pts: Sequence[int | None], stream: VideoStream) -> list[float]:
    """Seconds since the first frame; from the frame rate where presentation times lack or do not rise."""
    known = [p for p in pts if p is not None]
    if stream.time_base and len(known) == len(pts) and all(a < b for a, b in pairwise(known)):
        return [float((p - known[0]) * stream.time_base) for p in known]
    rate = float(stream.average_rate or 0)
    return [i / rate if rate else math.nan for i in range(len(pts))]
