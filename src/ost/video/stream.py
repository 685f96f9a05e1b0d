"""Videos that are not files of this machine: bytes, file objects and URLs, as binary files that can be sought."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ost.errors import OstError, VideoError, first_line

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
        return _rewinding(f"<{len(data):,} bytes>", lambda: io.BytesIO(data))
    if is_url(video):
        url = cast("str", video)
        return _rewinding(url, lambda: _open_url(url))
    if hasattr(video, "read") and not isinstance(video, str | os.PathLike):
        name = getattr(video, "name", None)
        return _rewinding(name if isinstance(name, str) else f"<{type(video).__name__}>", lambda: video)
    return None


class _Copy(tempfile.SpooledTemporaryFile[bytes]):
    """The content of a source that cannot be sought, in memory or in a temporary file."""

    def __init__(self, source: Any) -> None:
        super().__init__(SPOOLED_BYTES)
        while part := source.read(1 << 20):
            self.write(part)

    def __del__(self) -> None:
        self.close()


def _rewinding(name: str, get: Callable[[], Any]) -> Stream:
    """Return a stream over one file, which is opened at the first pass and rewound at each."""
    opened: list[Any] = []

    def at_start() -> BinaryIO:
        try:
            if not opened:
                file = get()
                if getattr(file, "closed", False):
                    raise VideoError(name, "the file object is closed")
                opened.append(file if file.seekable() else _Copy(file))
            opened[0].seek(0)
            start: object = opened[0].read(1)
            opened[0].seek(0)
        except OstError:
            raise
        except (
            Exception
        ) as error:  # a file object may be anybody's, and fsspec has exceptions for each protocol
            raise VideoError(name, f"it cannot be read ({first_line(error)})") from error
        if not isinstance(start, bytes):
            raise VideoError(name, "its file object gives text; open it in binary mode")
        if not start:
            raise VideoError(name, "the file is empty")
        return opened[0]

    return Stream(name, at_start)


def _open_url(url: str) -> Any:
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
        return system.open(path, "rb")
    except ImportError as error:
        cause = f"it needs a package that is missing ({first_line(error)}); pip install 'ost-video[remote]'"
        raise VideoError(url, cause) from error
    except FileNotFoundError as error:
        origin: BaseException = error
        while origin.__cause__ is not None:
            origin = origin.__cause__
        if isinstance(origin, FileNotFoundError) or getattr(origin, "status", None) == 404:
            raise VideoError(url, "there is no such file") from error
        raise VideoError(url, f"it cannot be reached ({first_line(origin)})") from error
