"""Videos that are not files of this machine: bytes, file objects and URLs, as binary files that can be sought."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ost.errors import OstError, UsageError, VideoError, first_line

_URL = re.compile(r"(https?|s3|gs|gcs)://", re.IGNORECASE)
SPOOLED_BYTES = 64 << 20  # of a source that cannot be sought; what is larger goes to a temporary file


@dataclass(frozen=True)
class Stream:
    """A video that is read through a binary file.

    Attributes:
        name: the path of its results.
        open: returns the file, seekable, at its start; called once for each pass over the video.
    """

    name: str
    open: Callable[[], BinaryIO]


def is_url(video: object) -> bool:
    """Return whether an input is a URL that fsspec opens: http, https, s3 or gs."""
    return isinstance(video, str) and _URL.match(video) is not None


def stream_of(video: object) -> Stream | None:
    """Return bytes, a file object or a URL as a stream; None for any other input."""
    if isinstance(video, bytes | bytearray | memoryview):
        data = bytes(video)
        return Stream(f"<{len(data):,} bytes>", lambda: io.BytesIO(data))
    if is_url(video):
        url = cast("str", video)
        return Stream(url, lambda: _open_url(url))
    if hasattr(video, "read") and not isinstance(video, str | os.PathLike):
        return _file_object(video)
    return None


def _file_object(file: Any) -> Stream:
    name = getattr(file, "name", None)
    title = name if isinstance(name, str) else f"<{type(file).__name__}>"

    def rewound() -> BinaryIO:
        try:
            if getattr(file, "closed", False):
                raise VideoError(title, "the file object is closed")
            seekable = file if file.seekable() else spooled[0] if spooled else _spool(file)
            if seekable is not file and not spooled:
                spooled.append(seekable)
            seekable.seek(0)
            start = seekable.read(1)
            seekable.seek(0)
        except (OSError, AttributeError, ValueError) as error:
            raise VideoError(title, f"its file object cannot be read ({first_line(error)})") from error
        if not isinstance(start, bytes):
            raise VideoError(title, "its file object gives text; open it in binary mode")
        if not start:
            raise VideoError(title, "the file is empty")
        return seekable

    spooled: list[BinaryIO] = []
    return Stream(title, rewound)


def _spool(file: Any) -> BinaryIO:
    """Copy a source that cannot be sought, such as a pipe, to memory or to a temporary file."""
    copy = tempfile.SpooledTemporaryFile(SPOOLED_BYTES)  # noqa: SIM115 - the stream keeps it
    while part := file.read(1 << 20):
        copy.write(part)
    return cast("BinaryIO", copy)


def _open_url(url: str) -> BinaryIO:
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
        file: Any = system.open(path, "rb")
        return file if file.seekable() else _spool(file)
    except ImportError as error:
        raise UsageError(
            f"{url}: needs a package that is missing ({first_line(error)})",
            "install ost-video[remote]",
        ) from error
    except FileNotFoundError as error:
        raise VideoError(url, "there is no such file") from error
    except OstError:
        raise
    except Exception as error:  # each protocol of fsspec has exceptions of its own
        raise VideoError(url, f"it cannot be reached ({first_line(error)})") from error
