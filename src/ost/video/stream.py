"""Videos that are not files of this machine: bytes, file objects and URLs, as binary files that can be sought.

FFmpeg never gets a user's object, but a `StreamFile` over it: that checks what each read returns, has a position of its
own, so that several decoders can share one object, and no name, from which FFmpeg could derive other addresses.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Any, cast

from ost.errors import OstError, VideoError, first_line
from ost.once import PerObject

_URL = re.compile(r"(https?|s3|gs|gcs)://", re.IGNORECASE)
MEMORY_BYTES = 64 << 20  # of a source that cannot be sought; what is larger goes to a temporary file
COPIED_BYTES = 8 << 30  # most that is copied of one
CONNECT_SECONDS = 10.0  # without an answer, or without a byte of one


@dataclass
class _Source:
    """A binary file that several `StreamFile`s share, under a lock, and its size in bytes."""

    file: Any
    size: int
    lock: Any


@dataclass(frozen=True)
class Stream:
    """A video that is read through a binary file.

    Attributes:
        name: the path of its results.
        source: returns the file, opened or copied at the first call.
    """

    name: str
    source: Callable[[], _Source]

    def open(self) -> StreamFile:
        """Return the content as a file of its own, at its start.

        Raises:
            VideoError: it cannot be read, or is empty.
        """
        try:
            source = self.source()
        except OstError:
            raise
        except (
            Exception
        ) as error:  # a file object may be anybody's, and fsspec has exceptions for each protocol
            raise VideoError(self.name, f"it cannot be read ({first_line(error)})") from error
        if not source.size:
            raise VideoError(self.name, "the file is empty")
        return StreamFile(source)


class StreamFile:
    """A reader of a shared binary file with a position of its own.

    Attributes:
        error: the first exception of a read, after which the file seems to end.
    """

    def __init__(self, source: _Source) -> None:
        self._source, self._position = source, 0
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end or after an error."""
        if self.error is not None or size <= 0:
            return b""
        try:
            with self._source.lock:
                self._source.file.seek(self._position)
                data = self._source.file.read(size)
            if not isinstance(data, bytes | bytearray | memoryview) or len(data) > size:
                raise TypeError(f"reading {size} bytes gave {type(data).__name__}")
        except (
            BaseException
        ) as error:  # an interrupt too, which FFmpeg would swallow; raised when the file is closed
            self.error = error
            return b""
        self._position += len(data)
        return bytes(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seekable(self) -> bool:
        """Return that the position can be moved."""
        return True


def is_url(video: object) -> bool:
    """Return whether an input is a URL that fsspec opens: http, https, s3 or gs."""
    return isinstance(video, str) and _URL.match(video) is not None


def stream_of(video: object) -> Stream | None:
    """Return bytes, a file object or a URL as a stream; None for any other input."""
    if isinstance(video, bytes | bytearray | memoryview):
        data = bytes(video)
        return Stream(f"<{len(data):,} bytes>", _once(lambda: _seekable(io.BytesIO(data))))
    if is_url(video):
        scheme, rest = cast("str", video).split(":", 1)
        return Stream(f"{video}", _once(lambda: _open_url(f"{scheme.lower()}:{rest}")))
    if hasattr(video, "read") and not isinstance(video, str | os.PathLike):
        name = getattr(video, "name", None)
        title = name if isinstance(name, str) else f"<{type(video).__name__}>"
        return Stream(title, lambda: _file_object(title, video))
    return None


def _once(make: Callable[[], _Source]) -> Callable[[], _Source]:
    made: list[_Source] = []
    lock = RLock()

    def get() -> _Source:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get


# The lock of a file object, and its copy where it cannot be sought: parts of one object share them.
_shared = PerObject[tuple[Any, list[_Source]]](lambda: (RLock(), []))


def _file_object(name: str, file: Any) -> _Source:
    if isinstance(file, io.TextIOBase):
        raise VideoError(name, "its file object gives text; open it in binary mode")
    lock, copies = _shared.get(file)
    with lock:
        if copies:
            return copies[0]
        if getattr(file, "closed", False):
            raise VideoError(name, "the file object is closed")
        if _can_seek(file):
            return _seekable(file, lock)
        copies.append(_seekable(_Copy(name, file)))
        return copies[0]


def _can_seek(file: Any) -> bool:
    try:
        if not getattr(file, "seekable", lambda: True)():
            return False
        file.seek(0)
    except Exception:
        return False
    return True


def _seekable(file: Any, lock: Any = None) -> _Source:
    file.seek(0, os.SEEK_END)
    return _Source(file, file.tell(), lock or RLock())


class _Copy(tempfile.SpooledTemporaryFile[bytes]):
    """The content of a source that cannot be sought, in memory or in a temporary file."""

    def __init__(self, name: str, source: Any) -> None:
        super().__init__(MEMORY_BYTES)
        while (part := source.read(1 << 20)) != b"":
            if part is None:
                raise VideoError(name, "its file object has no data yet; give one that waits for it")
            self.write(part)
            if self.tell() > COPIED_BYTES:
                raise VideoError(name, f"it has more than {COPIED_BYTES >> 30} GiB; save it as a file")

    def __del__(self) -> None:
        self.close()


def _open_url(url: str) -> _Source:
    try:
        return _over_http(url) if url.startswith("http") else _from_storage(url)
    except ImportError as error:
        cause = f"it needs a package that is missing ({first_line(error)}); pip install 'ost-video[remote]'"
        raise VideoError(url, cause) from error
    except FileNotFoundError as error:
        origin: BaseException = error
        while origin.__cause__ is not None:
            origin = origin.__cause__
        if isinstance(origin, FileNotFoundError) or getattr(origin, "status", None) == 404:
            raise VideoError(url, "there is no such file") from error
        status = getattr(origin, "status", None)
        cause = f"the server answers {status}" if status else f"it cannot be reached ({first_line(origin)})"
        raise VideoError(url, cause) from error


def _from_storage(url: str) -> _Source:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    return _seekable(system.open(path, "rb"))


def _over_http(url: str) -> _Source:
    """Open an address: in parts where the server gives parts of files, else as a copy."""
    from aiohttp import ClientTimeout
    from fsspec import filesystem

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=CONNECT_SECONDS)
    # By name, not through the address, in which fsspec would read "::" as a chain of file systems.
    system: Any = filesystem("http", client_kwargs={"timeout": timeout})
    info: dict[str, Any] = system.info(url)
    if info.get("size") and info.get("partial") is not False:
        source = _seekable(system.open(url, "rb"))
        try:
            source.file.seek(source.size - 1)
            source.file.read(1)
            return source
        except ValueError:  # the server answers with the whole file
            source.file.close()
    with system.open(url, "rb", block_size=0) as whole:
        return _seekable(_Copy(url, whole))
