"""The disk cache: how much of each kind it holds, its size limit, and what is pruned first.

A kind is a folder of the cache. The least recently used file is pruned first, but none that a run has used since it
began: a run holds a lock of the operating system, which is released when its process ends, however it ends.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Self

from ost.errors import UsageError
from ost.files import cache_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

CACHE_KINDS = {
    "embeddings": "frame embeddings of videos",
    "heads": "embedded descriptors of packs",
    "lite": "class names of the lite backbone",
    "archives": "indexes of .tar archives",
    "outdated": "written by other versions, and never read",
}
# Each file layout has its own folder: files in any other folder were written by another version.
FOLDERS = {"embeddings": "embeddings-4", "heads": "heads-3", "lite": "lite-1", "archives": "archives-1"}
OURS = re.compile("(embeddings|heads|lite|archives)(-[0-9]+)?")
LIMIT = "20 GB"
KEPT_SHARE = 0.9  # of the limit, kept when pruning, so that not every new file prunes
RESCAN_SHARE = 0.02  # of the limit; by so much each further process that writes may overshoot it
RUNS = "runs"
LOCK_TRIES = 5
CLOCK_GRAIN = 1.0  # seconds by which a file system may date a change too early
UNFINISHED_SECONDS = 24 * 3600.0  # age from which a temporary file counts as left by a killed process
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Usage(NamedTuple):
    """The number of files of a kind, and their bytes."""

    files: int
    bytes: int


class _File(NamedTuple):
    used: float
    path: Path
    bytes: int
    kind: str


def kind_folder(kind: str) -> Path:
    """Return the folder for files of a kind, in their present layout."""
    return cache_folder() / FOLDERS[kind]


def usage() -> dict[str, Usage]:
    """Return what the cache holds, by kind."""
    by_kind: dict[str, Usage] = {}
    for kind in CACHE_KINDS:
        sizes = [file.bytes for file in _files(kind)]
        by_kind[kind] = Usage(len(sizes), sum(sizes))
    return by_kind


def size_limit() -> int:
    """Return how many bytes the cache may hold: `OST_CACHE_SIZE`, such as "50 GB"; by default 20 GB.

    Raises:
        UsageError: the variable is not a size.
    """
    try:
        return parse_size(os.environ.get("OST_CACHE_SIZE") or LIMIT)
    except UsageError as error:
        raise UsageError(f"OST_CACHE_SIZE: {error}") from None


def parse_size(text: str) -> int:
    """Parse a size such as "500 MB", "1.5GB" or "0"; return bytes.

    Raises:
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if not match:
        raise UsageError(f"a size is a number with KB, MB, GB or TB, such as 20GB, not {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def readable_size(count: float) -> str:
    """Format bytes in the largest unit that leaves 1 or more."""
    unit = next(unit for unit in ("T", "G", "M", "K", "") if count >= _UNITS[unit] or not unit)
    number = count / _UNITS[unit]
    return f"{number:.0f} B" if not unit else f"{number:.3g} {unit}B"


def touch(path: Path) -> None:
    """Record that a file is used now."""
    with suppress(OSError):
        os.utime(path)


class Use:
    """A run's use of the cache: no process prunes what it has touched until it ends.

    Use it as a context manager.
    """

    def __init__(self) -> None:
        self._touched: set[Path] = set()
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> Self:
        from filelock import FileLock, Timeout

        self._touched.clear()
        for _ in range(LOCK_TRIES):
            # The start time is in the name, because trying the lock changes the time of the file.
            lock_path = cache_folder() / RUNS / f"{time.time() - CLOCK_GRAIN:.3f}-{uuid.uuid4().hex}.lock"
            try:
                lock_path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(lock_path)
                lock.acquire(blocking=False)
            except Timeout:  # a process that prunes is testing the lock
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
        """Record that this run uses a file."""
        if path not in self._touched:
            self._touched.add(path)
            touch(path)


@dataclass
class _Estimate:
    """The bytes in the cache as this process knows them: scanned once, and added to.

    Attributes:
        total: bytes in the cache.
        added: bytes that this process has added since the scan.
    """

    total: int
    added: int = 0


_estimates: dict[Path, _Estimate] = {}  # by cache folder
_estimating = Lock()


class Room:
    """Room for new files under the limit, made by pruning. Other processes may write at the same time.

    A scan of a large cache takes seconds, so a process scans again only when its estimate reaches the limit, or when it
    has added so much that others may have added as much.
    """

    def __init__(self) -> None:
        self.limit = size_limit()

    def take(self, count: int) -> bool:
        """Reserve `count` more bytes, pruning if they do not fit; return whether they fit."""
        with _estimating:
            folder = cache_folder()
            estimate = _estimates.get(folder)
            if (
                estimate is None
                or estimate.total + count > self.limit
                or estimate.added + count > RESCAN_SHARE * self.limit
            ):
                estimate = _estimates[folder] = _Estimate(_total_bytes())
            if estimate.total + count > self.limit:
                estimate.total -= prune(max(0, int(KEPT_SHARE * self.limit) - count)).bytes
            fits = estimate.total + count <= self.limit
            if fits:
                estimate.total += count
                estimate.added += count
            return fits


def prune(limit: int, kinds: Collection[str] = tuple(CACHE_KINDS)) -> Usage:
    """Delete the least recently used files until these kinds hold at most `limit` bytes; return what was deleted.

    Temporary files that a killed process left are deleted too.
    """
    earliest_start = _earliest_start()
    files = sorted(file for kind in kinds for file in _files(kind))
    files.sort(key=lambda file: file.kind != "outdated")
    remaining, deleted, freed = sum(file.bytes for file in files), 0, 0
    for file in files:
        if remaining <= limit:
            break
        if file.used >= earliest_start:
            continue
        with suppress(OSError):
            file.path.unlink(missing_ok=True)
            remaining, deleted, freed = remaining - file.bytes, deleted + 1, freed + file.bytes
    for folder in (folder for kind in kinds for folder in _folders(kind)):
        _remove_leftovers(folder)
    return Usage(deleted, freed)


def _total_bytes() -> int:
    return sum(kind.bytes for kind in usage().values())


def _earliest_start() -> float:
    """Return when the oldest run in progress began; infinity if there is none."""
    from filelock import FileLock, Timeout

    earliest_start = float("inf")
    for lock_path in (cache_folder() / RUNS).glob("*.lock"):
        lock = FileLock(lock_path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            earliest_start = min(earliest_start, float(lock_path.name.partition("-")[0]))
        except (OSError, NotImplementedError):
            continue
        else:  # the process that held it was killed
            with suppress(
                OSError
            ):  # Windows deletes no open file; on other systems nobody can lock a name that goes
                lock_path.unlink(missing_ok=True)
            lock.release()
    return earliest_start


def _folders(kind: str) -> list[Path]:
    if kind != "outdated":
        return [kind_folder(kind)]
    # Only names that a version gave: the folder may hold what is not ours.
    try:
        return [
            path
            for path in cache_folder().iterdir()
            if OURS.fullmatch(path.name) and path.name not in FOLDERS.values() and path.is_dir()
        ]
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
    """Remove temporary files that no process writes any more, and empty folders."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()  # only removes an empty one
            elif path.name.startswith(".") and time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                path.unlink()
