"""Where the videos of a list lie below a folder, however their files are named and arranged."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ost.archives import is_archive, members
from ost.datasets.lists import Entry
from ost.datasets.manifest import Clip
from ost.errors import UsageError
from ost.files import IMAGE_ENDINGS, VIDEO_ENDINGS
from ost.names import fold

# Folders that say which part or size of a data set is in them, and not which class.
_LAYOUT = {
    *("video", "videos", "clip", "clips", "raw", "frame", "frames", "rawframes", "image", "images", "data"),
    *("train", "training", "val", "valid", "validation", "test", "testing"),
    *("tiny", "short", "small", "resized", "compress", "compressed", "p"),
}
# Further words of archives that hold a data set or a part of it: `UCF-101`, `k400_val`, `part_0`.
_SETS = _LAYOUT | {
    *("hmdb", "ucf", "kinetics", "k", "activitynet", "activity", "net", "anet", "something", "sth", "bn"),
    *("ssv", "v", "dataset", "part", "parts", "shard", "shards", "org", "original", "archive", "all", "full"),
}
_SUFFIX = re.compile(r"(?:_\d{2,5}x\d{2,5}|[-_.]\d{3,4}p|[-_.]short\d{2,4}|[-_.]resized)$", re.IGNORECASE)
_TAR = re.compile(r"\.tar$", re.IGNORECASE)

Rank = tuple[int, int]


class Located(NamedTuple):
    """Where the videos of a list are.

    Attributes:
        clips: those that are there, in the order of the list.
        missing: the entries that are not.
        notices: archives of which not all can be read, one sentence each.
        unclear: video -> why it cannot be told which file it is.
    """

    clips: list[Clip]
    missing: list[Entry]
    notices: tuple[str, ...] = ()
    unclear: Mapping[str, str] = MappingProxyType({})


class Unclear(UsageError):
    """A video that can be more than one file, or a file that can be more than one video."""

    def __init__(self, video: str, cause: str) -> None:
        super().__init__(f"{video}: {cause}")
        self.cause = cause


class _Name(NamedTuple):
    folder: str
    name: str
    stem: str
    home: str  # the folder of its class, "" if it lies in none


class _Place(NamedTuple):
    path: str
    is_folder: bool


class Locator:
    """An index of the videos and the folders of frame images below a folder, made once.

    Hidden files and folders are left out, and so is what lies behind a link to a folder or may not be read. A
    .tar archive is a folder of its name without the ending, which is that of a class or of a data set.

    Args:
        root: the folder, or an archive.

    Raises:
        UsageError: it is not a folder that can be read.

    Attributes:
        notices: one sentence for each archive of which not all can be read.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.notices: list[str] = []
        self._homes: dict[str, list[str]] = {}
        self._places: dict[tuple[str, str], list[_Place]] = {}
        for place in self._walk():
            name = _named(place.path.replace(os.sep, "/"))
            for stem in _stems(name.stem):
                if (stem, name.home) not in self._places:
                    self._homes.setdefault(stem, []).append(name.home)
                self._places.setdefault((stem, name.home), []).append(place)

    def find(self, entry_video: str) -> Path | None:
        """The video that a list means, or a folder of its frames; None if there is none.

        The nearest is taken: the same file name before another ending of a video, a size behind the name
        (`_320x240`, `-256p`, `_short256`, `.resized`), `v_` before it (where the list gives no ending) and a folder
        of frames; among these the same path, then one with a class folder more, then one that differs in
        folders such as `videos/` or `train/`, then anywhere. A class folder that the list names is not left for
        that of another class.

        Raises:
            UsageError: two videos are equally near, or the path leads out of the root.
        """
        found = self.ranked(entry_video)
        return None if found is None else found[1]

    def ranked(self, entry_video: str) -> tuple[Rank, Path] | None:
        """As `find`, with how near the video is: less is nearer."""
        wanted = _wanted(entry_video)
        homes = self._homes.get(wanted.stem, []) if not wanted.home else [wanted.home, ""]
        nearest: tuple[Rank, list[str]] | None = None
        for home in homes:
            for place in self._places.get((wanted.stem, home), []):
                rank = _rank(wanted, place)
                if rank is None or (nearest and nearest[0] < rank):
                    continue
                if nearest and nearest[0] == rank:
                    nearest[1].append(place.path)
                else:
                    nearest = rank, [place.path]
        if nearest is None:
            return None
        rank, paths = nearest
        if len(paths) > 1:
            one, other = sorted(paths)[:2]
            raise Unclear(
                entry_video,
                f"can be {one} or {other} below {self.root}; keep one of them there, "
                "or give a folder that holds only the one that is meant",
            )
        return rank, self.root / paths[0]

    def _walk(self) -> Iterator[_Place]:
        def failed(error: OSError) -> None:
            if error.filename == str(self.root):
                raise UsageError(f"{self.root}: is not a folder that can be read; give the one of the videos")

        if is_archive(self.root):
            yield from self._in_archive("")
            return
        for folder, folders, files in os.walk(self.root, onerror=failed):
            folders[:] = [name for name in folders if name[0] != "."]
            endings = {name: os.path.splitext(name)[1].lower() for name in files if name[0] != "."}  # noqa: PTH122
            videos = [name for name, ending in endings.items() if ending in VIDEO_ENDINGS]
            below = os.path.relpath(folder, self.root)
            if below == ".":
                below = ""
            elif not videos and not IMAGE_ENDINGS.isdisjoint(endings.values()):
                yield _Place(below, True)
            paths = {name: os.path.join(below, name) for name in endings}  # noqa: PTH118
            yield from (_Place(paths[name], False) for name in videos)
            for name, ending in endings.items():
                if ending == ".tar" and is_archive(self.root / paths[name]):
                    yield from self._in_archive(paths[name])

    def _in_archive(self, below: str) -> Iterator[_Place]:
        index = members(self.root / below)
        if index.trouble:
            self.notices.append(f"{self.root / below}: {index.trouble}")
        for folder, names in index.folders.items():
            path = "/".join(part for part in (below.replace(os.sep, "/"), folder) if part)
            endings = {name: os.path.splitext(name)[1].lower() for name in names}  # noqa: PTH122
            videos = [name for name, ending in endings.items() if ending in VIDEO_ENDINGS]
            if path and not videos and not IMAGE_ENDINGS.isdisjoint(endings.values()):
                yield _Place(path, True)
            yield from (_Place(f"{path}/{name}" if path else name, False) for name in videos)


def locate_all(
    entries: Sequence[Entry],
    root: str | Path,
    title: str = "the list",
    layout: str = "them where the list says, by its file names at least",
) -> Located:
    """The videos of a list below a folder, each with its labels.

    A video that two entries could mean is that of the nearer one; see `Locator.find`.

    Args:
        entries: the list.
        root: the folder.
        title: what to call the list in errors.
        layout: how the videos are expected to lie, for errors.

    Raises:
        UsageError: none is there.
    """
    locator = Locator(root)
    found: dict[str, tuple[Rank, Path] | None] = {}
    unclear: dict[str, str] = {}
    for video in dict.fromkeys(entry.video for entry in entries):
        try:
            found[video] = locator.ranked(video)
        except Unclear as error:
            unclear[video] = error.cause
    owners = _owners(found)
    for path, videos in owners.items():
        for video in videos if len(videos) > 1 else ():
            other = next(one for one in videos if one != video)
            unclear[video] = (
                f"{path} can be it or {other} of {title}; give the file the path that it has in the list"
            )
    located = Located([], [], tuple(locator.notices), unclear)
    for entry in entries:
        if entry.video in unclear:
            continue
        hit = found[entry.video]
        if hit and entry.video in owners[hit[1]]:
            located.clips.append(Clip(hit[1], entry.labels[0], entry.labels[1:]))
        else:
            located.missing.append(entry)
    if not located.clips:
        example = f" (such as {entries[0].video})" if entries else ""
        reasons = [*locator.notices, *(f"{video} {cause}" for video, cause in unclear.items())]
        broken = "".join(f" ({line})" for line in reasons[:1])
        raise UsageError(
            f"none of the {len(entries)} videos of {title}{example} is below {root}; expected {layout}{broken}"
        )
    return located


def _owners(found: Mapping[str, tuple[Rank, Path] | None]) -> dict[Path, list[str]]:
    """The videos that mean each file, the nearest alone."""
    owners: dict[Path, list[str]] = {}
    nearest: dict[Path, Rank] = {}
    for video, hit in found.items():
        if hit is None or hit[0] > nearest.get(hit[1], hit[0]):
            continue
        if hit[0] < nearest.get(hit[1], hit[0]):
            owners[hit[1]] = []
        nearest[hit[1]] = hit[0]
        owners.setdefault(hit[1], []).append(video)
    return owners


def _wanted(video: str) -> _Name:
    parts = re.split(r"[/\\]", video)
    if not parts[0] or re.fullmatch(r"[A-Za-z]:", parts[0]) or ".." in parts:
        raise UsageError(f"{video!r}: leads out of the folder of the videos; a list gives paths below it")
    return _named("/".join(part for part in video.split("/") if part not in ("", ".")))


def _named(path: str) -> _Name:
    folder, _, name = unicodedata.normalize("NFC", path).rpartition("/")
    name = _TAR.sub("", name)
    stem, dot, ending = name.rpartition(".")
    if not stem or f"{dot}{ending}".lower() not in VIDEO_ENDINGS:
        stem = name
    classes = _classes(folder)
    return _Name(folder, name, stem, classes[-1] if classes else "")


def _stems(stem: str) -> set[str]:
    """What a list may call a file of this stem."""
    trimmed = _SUFFIX.sub("", stem)
    return {stem, trimmed, stem.removeprefix("v_"), trimmed.removeprefix("v_")}


@lru_cache(maxsize=1 << 16)
def _classes(folder: str) -> tuple[str, ...]:
    """The folders of a path, spelt alike, without those that only arrange a data set."""
    parts = [_TAR.sub("", part) for part in folder.split("/") if part and not _arranges(part)]
    return tuple(fold(part) or part for part in parts)


def _arranges(folder: str) -> bool:
    name = _TAR.sub("", folder)
    words = set(re.findall(r"[a-z]+", name.lower()))
    if not name.isascii():
        return False
    # `00012.tar` is a part; a class may be called by a letter or a small number.
    of_set = name != folder and words <= _SETS and len(name) > (2 if words else 3)
    return of_set or (bool(words) and words <= _LAYOUT)


@lru_cache(maxsize=1 << 16)
def _plain(folder: str) -> str:
    """A folder without the endings of archives in it."""
    return "/".join(_TAR.sub("", part) for part in folder.split("/"))


def _rank(wanted: _Name, place: _Place) -> Rank | None:
    """How near a place is by its name, then by its folders; None if it is not what is wanted."""
    name = _named(place.path.replace(os.sep, "/"))
    if name.name == wanted.name:
        return 0, _distance(wanted.folder, name.folder)
    if place.is_folder:
        return (4, _distance(wanted.folder, name.folder)) if name.name == wanted.stem else None
    trimmed = _SUFFIX.sub("", name.stem)
    has_ending = wanted.stem != wanted.name
    for nearness, same in enumerate(
        (
            name.stem == wanted.stem,
            trimmed == wanted.stem,
            not has_ending and f"v_{wanted.stem}" in (name.stem, trimmed),
        ),
        1,
    ):
        if same:
            return nearness, _distance(wanted.folder, name.folder)
    return None


def _distance(wanted: str, found: str) -> int:
    plain = _plain(found)
    if wanted == plain:
        return 0
    if wanted == plain.rpartition("/")[0]:
        return 1
    listed, there = _classes(wanted), _classes(found)
    return 2 if listed == there or listed == there[:-1] or listed[:-1] == there else 3
