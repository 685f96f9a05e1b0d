"""Files inside .tar archives, read where they lie: an archive is addressed as if it were a folder.

`videos.tar/run/a.avi` is the member `run/a.avi` of the file `videos.tar`. Nothing is unpacked: a member is a
window of its archive. Links, devices, sparse, empty and hidden members, and those whose names lead out of the
archive, are left out; of two with one name the last counts, as for tar.
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
MAX_WHOLE = 1 << 28  # bytes of a member read at once; a picture of 40 million pixels takes half, unpacked
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A file in an archive: `size` bytes of it from `offset` on."""

    archive: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Index:
    """What an archive holds.

    Attributes:
        members: by their names, with forward slashes.
        broken: why there may be more than these, "" if there is not.
    """

    members: dict[str, Member] = field(default_factory=dict[str, Member])
    broken: str = ""

    @property
    def trouble(self) -> str:
        """What of the archive cannot be read and what can, "" if all can."""
        count = len(self.members)
        return self.broken and f"{self.broken}; {count} file{'s' if count != 1 else ''} in it can be read"

    @cached_property
    def folders(self) -> dict[str, dict[str, Member]]:
        """The members directly in each folder, by their last names, sorted; the archive itself is the folder ""."""
        found: dict[str, dict[str, Member]] = {}
        for name in sorted(self.members):
            folder, _, last = name.rpartition("/")
            found.setdefault(folder, {})[last] = self.members[name]
        return {folder: found[folder] for folder in sorted(found, key=lambda folder: folder.split("/"))}


def is_archive(path: str | Path) -> bool:
    """Whether a path is that of a regular file whose name ends in .tar."""
    # Unlike those of Path, no error where looking is forbidden.
    return str(path).lower().endswith(".tar") and os.path.isfile(path)  # noqa: PTH113


def members(archive: str | Path) -> Index:
    """What an archive holds; it is gone through once as long as it does not change."""
    try:
        place = os.path.realpath(archive)
        now = Path(place).stat()
        return _index(place, now.st_size, now.st_mtime_ns)
    except OSError as error:
        return Index(broken=f"it cannot be read ({error.strerror or error})")


def within(path: str | Path) -> tuple[Path, str] | None:
    """The archive that a path leads into and the name in it, "" for the archive itself; None for other paths."""
    place = Path(path)
    try:
        mode = place.stat().st_mode
    except ValueError:  # a NUL in the name
        return None
    except OSError:
        archive = next((parent for parent in place.parents if is_archive(parent)), None)
        return None if archive is None else (archive, place.relative_to(archive).as_posix())
    return (place, "") if stat.S_ISREG(mode) and place.suffix.lower() == ".tar" else None


def find_member(path: str | Path) -> Member | None:
    """The member of an archive that a path leads to; None if it leads into none or there is no such member."""
    found = within(path)
    return members(found[0]).members.get(found[1]) if found else None


def member_folder(path: str | Path) -> dict[str, Member] | None:
    """The members directly in a folder of an archive, or in the archive itself; None if there is no such folder."""
    found = within(path)
    if found is None:
        return None
    archive, name = found
    return members(archive).folders.get(name, None if name else {})


def opened(member: Member) -> BinaryIO:
    """The bytes of a member, for reading.

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
    # The path may hold bytes that are no UTF-8.
    place = kind_folder("archives") / f"{text_hash(ascii(archive), str(size), str(changed))}.json"
    if (kept := _kept(place, Path(archive), size)) is not None:
        return kept
    index = _gone_through(Path(archive), size)
    windows = [[name, member.offset, member.size] for name, member in index.members.items()]
    # What cannot be kept is only gone through again next time.
    with contextlib.suppress(OSError), atomic(place) as temporary:
        temporary.write_text(json.dumps({"broken": index.broken, "members": windows}), encoding="ascii")
    return index


def _kept(place: Path, archive: Path, size: int) -> Index | None:
    """The index that was kept; None if there is none or it is damaged."""
    try:
        kept = json.loads(place.read_text(encoding="ascii"))
        index = Index({name: Member(archive, at, long) for name, at, long in kept["members"]}, kept["broken"])
        for name, (_, at, long) in index.members.items():
            if type(at) is not int or type(long) is not int or not 0 <= at <= at + long <= size:
                return None
            if _name(name) != name:
                return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return index if isinstance(index.broken, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]


class _Headers(io.FileIO):
    """An archive of which no more than `left` bytes are read, and none beyond its end or before its start.

    `tarfile` reads as much as a header claims, and goes wherever it says.
    """

    # Before 3.11.10 and 3.12.6 its search of a header takes the square of their number (CVE-2024-6232).
    digits = re.compile(rb"\d{999}")

    def __init__(self, place: Path, size: int) -> None:
        super().__init__(place)
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


def _gone_through(archive: Path, size: int) -> Index:
    """The index of an archive by its headers alone; whatever is wrong with it ends the index there."""
    found: dict[str, Member] = {}
    with _Headers(archive, size) as file:
        start = file.read(8)
        packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")
        if packed:
            return Index(
                broken=f"it is compressed with {packed} and only plain tar is read; decompress it first"
            )
        file.seek(0)
        try:
            broken = _collect(file, archive, found)
        except OSError:
            raise
        except Exception as error:  # tarfile raises whatever its parsing raises
            ours = isinstance(error, tarfile.ReadError) and str(error).startswith("a header ")
            broken = str(error) if ours else "a header in it is damaged" if found else "it is no tar archive"
        if file.ended and (found or size >= tarfile.BLOCKSIZE):
            broken = "it breaks off before its end"
    return Index(found, broken)


def _collect(file: _Headers, archive: Path, found: dict[str, Member]) -> str:
    """Add the members to `found`; why there may be more, else ""."""
    last = 0
    # Names that are no UTF-8 must not end the reading.
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        for _ in range(MAX_MEMBERS):
            file.left = MAX_HEADER
            info = tar.next()
            if info is None:
                break
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue] - it would keep them all
            if name := _name(info.name):
                found.pop(name, None)
                if info.isreg() and not info.issparse() and info.size > 0:
                    rest = max(0, file.size - info.offset_data)
                    found[name] = Member(archive, info.offset_data, min(info.size, rest))
            if tar.offset <= last:  # a negative size: it would go round in circles
                return "a header in it is damaged"
            last = tar.offset
        else:
            return f"it has more than {MAX_MEMBERS} members"
        file.left = MAX_HEADER
        file.seek(tar.offset)
        return "a header in it is damaged" if any(file.read(tarfile.BLOCKSIZE)) else ""


def _name(name: str) -> str:
    """A member's name with nothing in it that stands for no part; "" if it is not to be used."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    odd = not parts or name[0] == "/" or name[-1] == "/" or "\0" in name or "\\" in name
    if odd or any(part[0] == "." for part in parts) or re.fullmatch("[A-Za-z]:", parts[0]):
        return ""
    return "/".join(parts)
