"""Open FFmpeg containers and decoders safely: no file can make them read another file, hang or fill the memory."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ost.archives import Member
from ost.errors import VideoError, first_line
from ost.video.picture import MAX_PIXELS
from ost.video.stream import Stream, StreamFile

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

T = TypeVar("T")
READ_FAILED = "reading it failed midway (input/output error), so frames may be missing"  # a notice
PASSING = (  # errno of a network mount that is unreachable or slow
    *(errno.ETIMEDOUT, errno.ESTALE, errno.ECONNRESET, errno.ECONNABORTED, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN, errno.ENODEV),
)
MAX_THREADS = 8  # each holds frames of its own
STUCK_SECONDS = 10.0  # for one packet; a readable one takes milliseconds
# Seeking in containers without an index (MPEG) misses the keyframe: search from that many seconds before it.
LEADS = (0, 5, 30)
FURTHEST_SEEK = 1e9  # seconds, which fit FFmpeg's 64 bits; what comes later is reached by decoding on
# Formats that open other files or addresses, and formats that render text as pictures.
PLAYLISTS = "hls dash concat webm_dash_manifest imf sdp rtsp rtp sap image2 image2pipe alias_pix mlv vobsub"
NO_PROTOCOL = {"protocol_whitelist": "none"}  # of a stream, which FFmpeg reads through Python alone
TEXT_CODECS = "tty bin xbin adf idf"


class Cancelled(Exception):
    """Decoding was cancelled because nobody waits for the video any more."""


def unless_stopped(name: str, steps: Iterator[T], stop: Callable[[], bool]) -> Iterator[T]:
    """Yield the steps, and raise `Cancelled` at the first one where `stop` returns true."""
    for step in steps:
        if stop():
            raise Cancelled(name)
        yield step


@contextmanager
def open_container(name: str, place: Path | Member | Stream) -> Generator[tuple[InputContainer, VideoStream]]:
    """Open a file and yield its container and first video stream; raise FFmpeg's errors as `VideoError`."""
    import av
    from av.error import FFmpegError

    limits = {"max_pixels": str(MAX_PIXELS)}
    stream_file = place.open() if isinstance(place, Stream) else None
    address, protocol = (stream_file, NO_PROTOCOL) if isinstance(place, Stream) else _address(place)
    try:
        with av.open(
            address,
            mode="r",
            container_options={**protocol, "format_whitelist": _formats()},
            options=limits,
            timeout=STUCK_SECONDS,
            **_metadata_options(),
        ) as container:
            stream = _video_stream(container)
            if stream is None:
                raise VideoError(name, "it has no video stream that can be decoded")
            stream.codec_context.options = limits
            stream.codec_context.thread_count = min(MAX_THREADS, (os.cpu_count() or 1) + 1)
            yield container, stream
    except VideoError:
        _check_stream(name, stream_file)
        raise
    except FFmpegError as error:
        _check_stream(name, stream_file)
        raise VideoError(name, f"it is not a video that can be read ({_cause(error)})") from error
    except (MemoryError, OverflowError) as error:
        raise VideoError(name, "its header asks for more memory than any video needs") from error
    _check_stream(name, stream_file)


def _check_stream(name: str, file: StreamFile | None) -> None:
    """Raise the error of a read, which looked to FFmpeg like the end of the file."""
    if file is not None and file.error is not None:
        if not isinstance(file.error, Exception):
            raise file.error
        raise VideoError(name, f"reading it failed ({first_line(file.error)})") from file.error


def _address(place: Path | Member) -> tuple[str, dict[str, str]]:
    """Return the FFmpeg URL of a file or of an archive member, and the options of its protocols."""
    if not isinstance(place, Member):
        return f"file:{place}", {"protocol_whitelist": "file"}
    # As options, not in the URL, where a comma or a colon of the path would be parsed.
    window = {"start": str(place.offset), "end": str(place.offset + place.size)}
    return f"subfile:file:{place.archive}", {"protocol_whitelist": "subfile,file", **window}


def demuxed(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of these streams (default: all), then an empty packet for each to drain its decoder."""
    try:
        yield from cast("Iterator[Packet[VideoStream]]", container.demux(*streams))
    except IndexError:  # PyAV 18, at the end of a container in which streams appeared midway
        return


def good_frames(packets: Iterator[Packet[VideoStream]], io_errors: list[str]) -> Iterator[VideoFrame]:
    """Yield frames in presentation order, without broken packets and frames marked corrupt.

    Raises:
        FFmpegError: the file cannot be reached now. A truncated file raises nothing: its frames end early.
    """
    from av.error import FFmpegError

    try:
        for packet in packets:
            yield from decode_packet(packet)
    except FFmpegError as error:
        treat_as_end(error, io_errors)


def treat_as_end(error: FFmpegError, io_errors: list[str]) -> None:
    """Treat an error as the end of the file, and add it to `io_errors` where the disk may be failing.

    Raises:
        FFmpegError: the error comes from reaching the file (a network mount, an interrupt), not from the file.
    """
    from av.error import ExitError

    if isinstance(error, ExitError) or error.errno in PASSING:
        raise error
    if error.errno == errno.EIO:  # FFmpeg may report a truncated file so, too
        io_errors.append(str(error))


def decode_packet(packet: Packet[VideoStream]) -> list[VideoFrame]:
    """Return the frames that the decoder outputs for a packet; none if the packet is broken."""
    from av.error import FFmpegError

    try:
        return [frame for frame in packet.decode() if not frame.is_corrupt]
    except FFmpegError:
        return []


def can_seek(container: InputContainer, stream: VideoStream, pts: int) -> bool:
    """Seek to a keyframe at or before a presentation time; return False where FFmpeg finds none to seek to."""
    from av.error import FFmpegError

    try:
        container.seek(pts, stream=stream, backward=True)
    except FFmpegError as error:
        if error.errno != errno.EPERM:  # what FFmpeg's demuxers return as -1
            raise
        return False
    return True


def packets_from(
    container: InputContainer, stream: VideoStream, keyframe: int
) -> Iterator[Packet[VideoStream]]:
    """Return the packets from the keyframe with that presentation time on; none if seeking does not find it."""
    for lead in LEADS:
        if not can_seek(container, stream, keyframe - _ticks(stream, lead)):
            continue
        packets = demuxed(container, stream)
        for packet in packets:
            if packet.pts == keyframe:
                return chain([packet], packets)
            if packet.is_keyframe and packet.pts is not None and packet.pts > keyframe:
                break
    return iter(())


def keyframe_packet(container: InputContainer, stream: VideoStream, pts: int) -> Packet[VideoStream] | None:
    """Return the last keyframe at or before a presentation time, or the first after it if there is none."""
    from av.format import Flags

    indexed = not container.format.flags & Flags.ts_discont.value
    lead = 0 if indexed else _ticks(stream, LEADS[1])
    container.seek(pts - lead, stream=stream, backward=True)
    best = None
    for packet in demuxed(container, stream):
        if packet.is_keyframe and packet.size:
            if best is not None and packet.pts is not None and packet.pts > pts:
                break
            best = packet
            if indexed:
                break
    return best


def header_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Return the duration in seconds that the header states; 0 where it states none."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0


def frame_times(pts: Sequence[int | None], stream: VideoStream) -> list[float]:
    """Return seconds since the first frame, from the frame rate where presentation times are missing or do not rise."""
    known = [p for p in pts if p is not None]
    if stream.time_base and len(known) == len(pts) and all(a < b for a, b in pairwise(known)):
        return [float((p - known[0]) * stream.time_base) for p in known]
    rate = float(stream.average_rate or 0)
    return [i / rate if rate else math.nan for i in range(len(pts))]


def _ticks(stream: VideoStream, seconds: float) -> int:
    return int(seconds / stream.time_base) if stream.time_base else 0


@cache
def _metadata_options() -> dict[str, Any]:
    """Return the arguments that let PyAV before 19 open files whose tags are not UTF-8."""
    import av

    return {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}


@cache
def _formats() -> str:
    import av

    return ",".join(sorted(av.formats_available - {*PLAYLISTS.split(), *TEXT_CODECS.split()}))


def _video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first video stream that is not a cover picture, which audio files carry as a video stream."""
    from av.stream import Disposition

    streams = (s for s in container.streams.video if s.codec_context)
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def _cause(error: Exception) -> str:
    from av.error import ArgumentError

    if isinstance(error, ArgumentError):
        return "invalid, or a list of other files"
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0][:120].lower()
