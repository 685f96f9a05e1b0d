"""What is kept on disk from one run to the next: how much of each kind, within which limit, and what goes first.

A kind is a folder of the cache. The file that was used longest ago goes first, and none that a run has used since it
began: a run holds a lock of the operating system, which ends with its process however that ends.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from ost.errors import UsageError
from ost.files import cache_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

KINDS = {
    "embeddings": "frame embeddings of videos",
    "heads": "embedded descriptors of packs",
    "lite": "class names of the lite backbone",
    "archives": "indexes of .tar archives",
    "outdated": "written by other versions, and never read",
}
# A layout of files has a folder of its own: what lies in any other folder is of another version.
FOLDERS = {"embeddings": "embeddings-4", "heads": "heads-3", "lite": "lite-1", "archives": "archives-1"}
NOT_KEPT = ("runs", "licences")
LIMIT = "20 GB"
KEPT_SHARE = 0.9  # of the limit that is left after pruning, so that not every new file prunes
RUNS = NOT_KEPT[0]
TRIES = 5
CLOCK_GRAIN = 1.0  # seconds by which a file system may date a change before it
UNFINISHED_SECONDS = 24 * 3600.0  # after which a temporary file is one that a killed process left
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Usage(NamedTuple):
    """Files of a kind, and their bytes."""

    files: int
    bytes: int


class _File(NamedTuple):
    used: float
    path: Path
    bytes: int
    kind: str


def kind_folder(kind: str) -> Path:
    """Where files of a kind are kept, in their present layout."""
    return cache_folder() / FOLDERS[kind]


def usage() -> dict[str, Usage]:
    """What the cache holds, by kind."""
    found: dict[str, Usage] = {}
    for kind in KINDS:
        sizes = [file.bytes for file in _files(kind)]
        found[kind] = Usage(len(sizes), sum(sizes))
    return found


def size_limit() -> int:
    """Bytes that the cache may hold: `OST_CACHE_SIZE`, such as "50 GB"; by default 20 GB.

    Raises:
        UsageError: it is no size.
    """
    try:
        return parse_size(os.environ.get("OST_CACHE_SIZE") or LIMIT)
    except UsageError as error:
        raise UsageError(f"OST_CACHE_SIZE: {error}") from None


def parse_size(text: str) -> int:
    """Bytes of "500 MB", "1.5GB" or "0".

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if not found:
        raise UsageError(f"a size is a number with KB, MB, GB or TB, such as 20GB, not {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def readable_size(count: float) -> str:
    """Bytes in the largest unit that leaves 1 or more."""
    unit = next(unit for unit in ("T", "G", "M", "K", "") if count >= _UNITS[unit] or not unit)
    number = count / _UNITS[unit]
    return f"{number:.0f} B" if not unit else f"{number:.3g} {unit}B"


def touch(path: Path) -> None:
    """Note that a file is used now."""
    with suppress(OSError):
        os.utime(path)


class Use:
    """A run's use of the cache: what it has touched is not pruned by any process until it ends.

    Use it as a context manager.
    """

    def __init__(self) -> None:
        self._touched: set[Path] = set()
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> Self:
        from filelock import FileLock, Timeout

        self._touched.clear()
        for _ in range(TRIES):
            # The name tells when it began: whoever tries the lock changes the time of the file.
            place = cache_folder() / RUNS / f"{time.time() - CLOCK_GRAIN:.3f}-{uuid.uuid4().hex}.lock"
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(place)
                lock.acquire(blocking=False)
            except Timeout:  # somebody who prunes tries whether it is held
                continue
            except (OSError, NotImplementedError):  # a cache that cannot be written is not pruned either
                break
            self._lock = lock
            break
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()
            with suppress(OSError):
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock = None

    def touch(self, path: Path) -> None:
        """Note that this run uses a file."""
        if path not in self._touched:
            self._touched.add(path)
            touch(path)


class Room:
    """Room for new files under the limit, made by pruning. Other processes may write at the same time."""

    def __init__(self) -> None:
        self.limit = size_limit()

    def take(self, count: int) -> bool:
        """Whether `count` bytes more fit, after pruning where they would not."""
        if _held() + count <= self.limit:
            return True
        prune(max(0, int(KEPT_SHARE * self.limit) - count))
        return _held() + count <= self.limit


def prune(limit: int, kinds: Collection[str] = tuple(KINDS)) -> Usage:
    """Delete what was used longest ago until these kinds hold at most `limit` bytes; gives what went.

    Temporary files that a killed process left go too.
    """
    began = _earliest_run()
    files = sorted(file for kind in kinds for file in _files(kind))
    files.sort(key=lambda file: file.kind != "outdated")
    left, gone, freed = sum(file.bytes for file in files), 0, 0
    for file in files:
        if left <= limit or file.used >= began:
            break
        with suppress(OSError):
            file.path.unlink(missing_ok=True)
            left, gone, freed = left - file.bytes, gone + 1, freed + file.bytes
    for folder in (folder for kind in kinds for folder in _folders(kind)):
        _remove_leftovers(folder)
    return Usage(gone, freed)


def _held() -> int:
    return sum(kind.bytes for kind in usage().values())


def _earliest_run() -> float:
    """When the oldest of the runs began that go on now; infinity if there is none."""
    from filelock import FileLock, Timeout

    began = float("inf")
    for place in (cache_folder() / RUNS).glob("*.lock"):
        lock = FileLock(place)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            began = min(began, float(place.name.partition("-")[0]))
        except (OSError, NotImplementedError):
            continue
        else:  # whoever held it was killed
            lock.release()
            place.unlink(missing_ok=True)
    return began


def _folders(kind: str) -> list[Path]:
    if kind != "outdated":
        return [kind_folder(kind)]
    current = {*FOLDERS.values(), *NOT_KEPT}
    try:
        return [place for place in cache_folder().iterdir() if place.is_dir() and place.name not in current]
    except OSError:
        return []


def _files(kind: str) -> Iterator[_File]:
    for folder in _folders(kind):
        for path in folder.rglob("*"):
            with suppress(OSError):
                state = path.stat()
                if path.is_file() and not path.name.startswith("."):
                    yield _File(state.st_mtime, path, state.st_size, kind)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files that nobody writes any more, and empty folders."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()  # only an empty one goes
            elif path.name.startswith(".") and time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                path.unlink()
