"""Read files inside .tar archives in place: an archive is addressed as if it were a folder.

`videos.tar/run/a.avi` is the member `run/a.avi` of the file `videos.tar`. Nothing is unpacked: a member is a
window of its archive. Links, devices, sparse, empty and hidden members, and those whose names lead out of the
archive, are left out; of two members with one name the last counts, as for tar.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import tarfile
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ost.cache import kind_folder
from ost.errors import OstError
from ost.files import atomic, text_hash

MAX_MEMBERS = 5_000_000
MAX_HEADER = 1 << 16  # bytes of one member's headers; xattrs and the longest paths fit
MAX_WHOLE = 1 << 28  # bytes of a member read at once; an uncompressed image of 40 million pixels takes half
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A file in an archive: `size` bytes from `offset` on."""

    archive: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Index:
    """The contents of an archive.

    Attributes:
        members: name, with forward slashes -> member.
        broken: why the index may be incomplete, "" if it is complete.
    """

    members: dict[str, Member] = field(default_factory=dict[str, Member])
    broken: str = ""

    @property
    def trouble(self) -> str:
        """What cannot be read of the archive, and how many files can; "" if all can."""
        count = len(self.members)
        return self.broken and f"{self.broken}; {count} file{'s' if count != 1 else ''} in it can be read"

    @cached_property
    def folders(self) -> dict[str, dict[str, Member]]:
        """The members directly in each folder, by their last names, sorted; the archive itself is the folder ""."""
        tree: dict[str, dict[str, Member]] = {}
        for name in sorted(self.members):
            folder, _, last = name.rpartition("/")
            tree.setdefault(folder, {})[last] = self.members[name]
        return {folder: tree[folder] for folder in sorted(tree, key=lambda folder: folder.split("/"))}


def is_archive(path: str | Path) -> bool:
    """Return whether a path is a regular file whose name ends in .tar."""
    # Unlike Path.is_file, os.path.isfile does not raise where access is denied.
    return str(path).lower().endswith(".tar") and os.path.isfile(path)  # noqa: PTH113


def members(archive: str | Path) -> Index:
    """Return the contents of an archive; it is scanned only once while it does not change."""
    try:
        real_path = os.path.realpath(archive)
        state = Path(real_path).stat()
        return _index(real_path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        return Index(broken=f"it cannot be read ({error.strerror or error})")


def within(path: str | Path) -> tuple[Path, str] | None:
    """Return the archive that a path leads into and the name in it, "" for the archive itself; None for other paths."""
    target = Path(path)
    try:
        mode = target.stat().st_mode
    except ValueError:  # a NUL in the name
        return None
    except OSError:
        archive = next((parent for parent in target.parents if is_archive(parent)), None)
        return None if archive is None else (archive, target.relative_to(archive).as_posix())
    return (target, "") if stat.S_ISREG(mode) and target.suffix.lower() == ".tar" else None


def find_member(path: str | Path) -> Member | None:
    """Return the member of an archive that a path leads to; None if there is no such archive or member."""
    location = within(path)
    return members(location[0]).members.get(location[1]) if location else None


def member_folder(path: str | Path) -> dict[str, Member] | None:
    """Return the members directly in a folder of an archive, or at its top level; None if there is no such folder."""
    location = within(path)
    if location is None:
        return None
    archive, name = location
    return members(archive).folders.get(name, None if name else {})


def open_member(member: Member) -> BinaryIO:
    """Read a member into memory, and return it as a binary file.

    Raises:
        OstError: it is too large to be read at once.
        OSError: the archive cannot be read.
    """
    if member.size > MAX_WHOLE:
        raise OstError(
            f"{member.archive}: a file in it is larger than {MAX_WHOLE >> 20} MiB; unpack the archive"
        )
    with member.archive.open("rb") as file:
        file.seek(member.offset)
        return io.BytesIO(file.read(member.size))


@lru_cache(maxsize=1024)
def _index(archive: str, size: int, changed: int) -> Index:
    # The path may hold bytes that are not UTF-8.
    cache_file = kind_folder("archives") / f"{text_hash(ascii(archive), str(size), str(changed))}.json"
    if (cached := _read_cached(cache_file, Path(archive), size)) is not None:
        return cached
    index = _scan(Path(archive), size)
    windows = [[name, member.offset, member.size] for name, member in index.members.items()]
    # An index that cannot be cached is only built again next time.
    with contextlib.suppress(OSError), atomic(cache_file) as temporary:
        temporary.write_text(json.dumps({"broken": index.broken, "members": windows}), encoding="ascii")
    return index


def _read_cached(cache_file: Path, archive: Path, size: int) -> Index | None:
    """Read a cached index; return None if there is none or it is damaged."""
    try:
        data = json.loads(cache_file.read_text(encoding="ascii"))
        index = Index(
            {name: Member(archive, start, length) for name, start, length in data["members"]},
            data["broken"],
        )
        for name, (_, start, length) in index.members.items():
            if type(start) is not int or type(length) is not int or not 0 <= start <= start + length <= size:
                return None
            if _name(name) != name:
                return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return index if isinstance(index.broken, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]


class _Headers(io.FileIO):
    """An archive that reads at most `left` bytes, and none beyond its end or before its start.

    `tarfile` itself reads as much as a header claims, and seeks wherever it says.
    """

    # Before 3.11.10 and 3.12.6 tarfile takes quadratic time to search such a header (CVE-2024-6232).
    digits = re.compile(rb"\d{999}")

    def __init__(self, archive: Path, size: int) -> None:
        super().__init__(archive)
        self.size = size
        self.left = MAX_HEADER
        self.ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a header in it claims more than {MAX_HEADER >> 10} KiB")
        self.left -= size
        data = super().read(size) or b""
        self.ended = self.ended or len(data) < size
        if size > tarfile.BLOCKSIZE and self.digits.search(data):
            raise tarfile.ReadError("a header in it holds endless numbers")
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if not 0 <= offset <= self.size:
            self.ended = offset > self.size
            raise tarfile.ReadError("a header in it is damaged")
        return super().seek(offset, whence)


def _scan(archive: Path, size: int) -> Index:
    """Index an archive from its headers alone; the index ends at the first error."""
    entries: dict[str, Member] = {}
    with _Headers(archive, size) as file:
        start = file.read(8)
        packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")
        if packed:
            return Index(
                broken=f"it is compressed with {packed} and only plain tar is read; decompress it first"
            )
        file.seek(0)
        try:
            broken = _collect(file, archive, entries)
        except OSError:
            raise
        except Exception as error:  # tarfile passes on whatever its parsing raises
            known = isinstance(error, tarfile.ReadError) and str(error).startswith("a header ")
            broken = (
                str(error) if known else "a header in it is damaged" if entries else "it is no tar archive"
            )
        if file.ended and (entries or size >= tarfile.BLOCKSIZE):
            broken = "it breaks off before its end"
    return Index(entries, broken)


def _collect(file: _Headers, archive: Path, entries: dict[str, Member]) -> str:
    """Add the members to `entries`; return why there may be more, else ""."""
    last = 0
    # Names that are not UTF-8 must not stop the scan.
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        for _ in range(MAX_MEMBERS):
            file.left = MAX_HEADER
            info = tar.next()
            if info is None:
                break
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue] - it would keep them all
            if name := _name(info.name):
                entries.pop(name, None)
                if info.isreg() and not info.issparse() and info.size > 0:
                    rest = max(0, file.size - info.offset_data)
                    entries[name] = Member(archive, info.offset_data, min(info.size, rest))
            if tar.offset <= last:  # a negative size, which would loop forever
                return "a header in it is damaged"
            last = tar.offset
        else:
            return f"it has more than {MAX_MEMBERS} members"
        file.left = MAX_HEADER
        file.seek(tar.offset)
        return "a header in it is damaged" if any(file.read(tarfile.BLOCKSIZE)) else ""


def _name(name: str) -> str:
    """Return a member's name without empty and "." parts; "" if it must not be used."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    unusable = not parts or name[0] == "/" or name[-1] == "/" or "\0" in name or "\\" in name
    if unusable or any(part[0] == "." for part in parts) or re.fullmatch("[A-Za-z]:", parts[0]):
        return ""
    return "/".join(parts)
