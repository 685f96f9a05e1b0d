"""Locate a video: a file, a folder of frame images, an archive member, a stream or frames in memory."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from typing_extensions import TypeIs

from ost.archives import Member, find_member, member_folder, members, within
from ost.errors import UsageError, VideoError
from ost.video.memory import Indexed, indexed
from ost.video.stream import Stream, stream_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Place = Path | Member | Stream
EMPTY = "an empty path is no video"


class FramesByIndex(Protocol):
    """A decoder of torchcodec, or one like it."""

    @property
    def metadata(self) -> Any:
        """Return num_frames, average_fps and begin_stream_seconds."""
        ...

    def get_frames_at(self, indices: list[int]) -> Any:
        """Return the frames with these indices: data [n, 3, H, W] and pts_seconds [n]."""
        ...


if TYPE_CHECKING:  # an input that `as_video` takes
    Video = (
        str
        | os.PathLike[str]
        | bytes
        | bytearray
        | memoryview
        | IO[bytes]
        | np.ndarray
        | Tensor
        | list[Any]
        | dict[str, Any]
        | FramesByIndex
        | Stream
        | Indexed
    )
else:
    Video = Any


def as_video(video: object) -> str | Stream | Indexed:
    """Return an input as `located` takes it: a path, a stream, or frames that are read by index.

    Args:
        video: a path, bytes, a binary file object, a URL, an array or tensor [T, H, W, 3], a list of PIL images, a
            `FrameSequence`, a torchcodec `VideoDecoder`, or a `datasets` value {"path": ..., "bytes": ...}, whose path
            is never a URL.

    Raises:
        VideoError: it is none of these.
    """
    if isinstance(video, Stream) or is_indexed(video):
        return video
    if isinstance(video, dict) and set(cast("dict[str, Any]", video)) == {"path", "bytes"}:
        return _dataset_value(cast("dict[str, Any]", video))
    if (stream := stream_of(video)) is not None:
        return stream
    if isinstance(video, str | os.PathLike):
        if not (path := os.fsdecode(cast("str | os.PathLike[str]", video))):
            raise VideoError("''", EMPTY)
        return path
    try:
        frames = indexed(video)
    except UsageError as error:
        raise VideoError(short_name(video), str(error)) from error
    if frames is None:
        kinds = "a path, a URL, bytes, a file object, an array, PIL images or a decoder"
        raise VideoError(short_name(video), f"a video is {kinds}, not a {type(video).__name__}")
    return frames


def _dataset_value(value: dict[str, Any]) -> str | Stream:
    """Return the video of a row of a `datasets` column, whose text is not the caller's."""
    path, data = value["path"], value["bytes"]
    if data is not None and not isinstance(data, bytes | bytearray | memoryview):
        raise VideoError(short_name(path), f"its bytes are a {type(data).__name__}")
    stream = None if data is None else stream_of(data)
    if stream is not None:
        return replace(stream, name=str(path or stream.name))
    if not isinstance(path, str | os.PathLike):
        raise VideoError(short_name(path), f"a video is a path or bytes, not a {type(path).__name__}")
    if not os.fspath(path):
        raise VideoError("''", EMPTY)
    return os.fspath(Path(path))  # which is no URL any more


def short_name(value: object) -> str:
    """Return a short name of an input for errors: a path or a plain value as it is, else its type."""
    if isinstance(value, str | os.PathLike):
        return os.fsdecode(cast("str | os.PathLike[str]", value))
    if isinstance(value, tuple):
        values = cast("tuple[object, ...]", value)
        return f"({', '.join(repr(v) if isinstance(v, str) else short_name(v) for v in values)})"
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e15):
        return repr(value)
    return f"<{type(value).__name__}>"


def name_of(video: str | Stream | Indexed) -> str:
    """Return the name of an input in its results."""
    return video if isinstance(video, str) else video.name


def is_indexed(video: object) -> TypeIs[Indexed]:
    """Return whether an input is frames in memory, which are read by index."""
    return hasattr(video, "times") and hasattr(video, "frames")


def located(video: str | Stream) -> Place:
    """Return the file, archive member, folder of frame images or stream that holds a video.

    Raises:
        VideoError: it is missing, empty, unreadable, or neither file nor folder.
    """
    if isinstance(video, Stream):
        return video
    name, place = video, Path(video)
    member = find_member(place)
    if member is None:
        _check_readable(name, place)
        return place
    if member.size == 0:
        raise VideoError(name, "the archive breaks off before it")
    return member


def is_folder(place: Place) -> bool:
    """Return whether a located video is a folder of frame images."""
    return isinstance(place, Path) and (place.is_dir() or member_folder(place) is not None)


def _check_readable(name: str, place: Path) -> None:
    try:
        mode = place.stat().st_mode
        if stat.S_ISDIR(mode):
            return
        if not stat.S_ISREG(mode):  # reading from a pipe could block forever
            raise VideoError(name, "it is neither a file nor a folder")
        with place.open("rb") as file:
            if not file.read(1):
                raise VideoError(name, "the file is empty")
    except (FileNotFoundError, NotADirectoryError) as error:
        if archive := within(place):
            if member_folder(place) is not None:
                return
            fault = members(archive[0]).broken
            cause = "there is no such file in the archive"
            raise VideoError(
                name, f"{cause}, of which not all can be read: {fault}" if fault else cause
            ) from error
        raise VideoError(name, "there is no such file") from error
    except PermissionError as error:
        raise VideoError(name, "no permission to read it") from error
    except OSError as error:
        raise VideoError(name, f"it cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL in the name
        raise VideoError(repr(name), "that is not a file name") from error
