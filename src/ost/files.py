"""Atomic writes, hashes, the cache folder, and the file endings of videos and images."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

from ost.errors import OstError

VIDEO_ENDINGS = frozenset(
    {
        *(".3gp", ".asf", ".avi", ".divx", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
        *(".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
    }
)
IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})


@contextlib.contextmanager
def atomic(path: str | Path) -> Generator[Path, None, None]:
    """Yield a temporary path beside `path`: it replaces `path` if the block succeeds, else it is deleted."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def printable(text: str) -> str:
    """Return a text that UTF-8 can encode: surrogates, which stand for undecodable bytes of a path, become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_hash(*parts: str) -> str:
    """Return the SHA-256 of several texts, in hexadecimal; where one part ends and the next begins counts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder for derived data: `OST_CACHE`, or the user's cache folder of the system."""
    if folder := os.environ.get("OST_CACHE"):
        return Path(folder).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("ost", appauthor=False))


def package_file(package: str, inside: str) -> Path:
    """Return the path of a data file of an installed package, without importing the package.

    Raises:
        OstError: the package or the file is not installed.
    """
    spec = find_spec(package)
    file = Path(spec.origin).parent / inside if spec and spec.origin else None
    if file is None or not file.is_file():
        raise OstError(f"the file {inside} of the package {package} is not installed; reinstall ost-video")
    return file
