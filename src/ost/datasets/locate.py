"""Locate the videos of a list below a folder, however their files are named and arranged."""

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
from ost.datasets.manifest import LabelledVideo
from ost.errors import UsageError
from ost.files import IMAGE_ENDINGS, VIDEO_ENDINGS
from ost.names import fold

# Words in folder names that state the part or size of a data set, and not a class.
_LAYOUT = {
    *("video", "videos", "clip", "clips", "raw", "frame", "frames", "rawframes", "image", "images", "data"),
    *("train", "training", "val", "valid", "validation", "test", "testing"),
    *("tiny", "short", "small", "resized", "compress", "compressed", "p"),
}
# Further words in the names of archives of a data set or a part of it: `UCF-101`, `k400_val`, `part_0`.
_SETS = _LAYOUT | {
    *("hmdb", "ucf", "kinetics", "k", "activitynet", "activity", "net", "anet", "something", "sth", "bn"),
    *("ssv", "v", "dataset", "part", "parts", "shard", "shards", "org", "original", "archive", "all", "full"),
}
_SUFFIX = re.compile(r"(?:_\d{2,5}x\d{2,5}|[-_.]\d{3,4}p|[-_.]short\d{2,4}|[-_.]resized)$", re.IGNORECASE)
_TAR = re.compile(r"\.tar$", re.IGNORECASE)

Rank = tuple[int, int]


class Located(NamedTuple):
    """The files of a list's videos.

    Attributes:
        videos: the videos that were located, in the order of the list.
        missing: the entries without a file.
        notices: archives that cannot be read to their end, one sentence each.
        unclear: video -> why its file is ambiguous.
    """

    videos: list[LabelledVideo]
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
    home: str  # the folder of its class, "" if it has none


class _Place(NamedTuple):
    path: str
    is_folder: bool


class Locator:
    """An index of the videos and the folders of frame images below a folder, built once.

    Hidden files and folders are left out, as are links to folders and folders without read permission. A .tar
    archive counts as a folder named like it without the ending, after a class or a data set.

    Args:
        root: the folder, or an archive.

    Raises:
        UsageError: it is not a folder that can be read.

    Attributes:
        notices: one sentence for each archive that cannot be read to its end.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.notices: list[str] = []
        self._homes: dict[str, list[str]] = {}
        self._places: dict[tuple[str, str], list[_Place]] = {}
        for place in self._walk():
            name = _parse_name(place.path.replace(os.sep, "/"))
            for stem in _stems(name.stem):
                if (stem, name.home) not in self._places:
                    self._homes.setdefault(stem, []).append(name.home)
                self._places.setdefault((stem, name.home), []).append(place)

    def find(self, entry_video: str) -> Path | None:
        """Return the video that a list means, or a folder of its frames; None if there is none.

        The nearest match is returned. By name, in this order: the same file name, another video ending, a size
        after the name (`_320x240`, `-256p`, `_short256`, `.resized`), `v_` before it (where the list gives no
        ending), a folder of frames. Among equal names: the same path, one more class folder, other folders such
        as `videos/` or `train/`, anywhere. A video that the list puts in a class folder is never matched in
        the folder of another class.

        Raises:
            UsageError: two videos are equally near, or the path leads out of the root.
        """
        match = self.ranked(entry_video)
        return None if match is None else match[1]

    def ranked(self, entry_video: str) -> tuple[Rank, Path] | None:
        """Return the rank and path of the video that `find` returns; a lower rank is nearer."""
        target = _entry_name(entry_video)
        homes = self._homes.get(target.stem, []) if not target.home else [target.home, ""]
        nearest: tuple[Rank, list[str]] | None = None
        for home in homes:
            for place in self._places.get((target.stem, home), []):
                rank = _rank(target, place)
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
    """Locate the videos of a list below a folder, each with its labels.

    A file that matches two entries goes to the nearer one; see `Locator.find`.

    Args:
        entries: the list.
        root: the folder.
        title: the name of the list in errors.
        layout: the expected arrangement of the videos, for errors.

    Raises:
        UsageError: no video was located.
    """
    locator = Locator(root)
    matches: dict[str, tuple[Rank, Path] | None] = {}
    unclear: dict[str, str] = {}
    for video in dict.fromkeys(entry.video for entry in entries):
        try:
            matches[video] = locator.ranked(video)
        except Unclear as error:
            unclear[video] = error.cause
    owners = _owners(matches)
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
        match = matches[entry.video]
        if match and entry.video in owners[match[1]]:
            located.videos.append(LabelledVideo(match[1], entry.labels[0], entry.labels[1:]))
        else:
            located.missing.append(entry)
    if not located.videos:
        example = f" (such as {entries[0].video})" if entries else ""
        reasons = [*locator.notices, *(f"{video} {cause}" for video, cause in unclear.items())]
        broken = "".join(f" ({line})" for line in reasons[:1])
        raise UsageError(
            f"none of the {len(entries)} videos of {title}{example} is below {root}; expected {layout}{broken}"
        )
    return located


def _owners(matches: Mapping[str, tuple[Rank, Path] | None]) -> dict[Path, list[str]]:
    """Return the videos that match each file, keeping only the nearest."""
    owners: dict[Path, list[str]] = {}
    nearest: dict[Path, Rank] = {}
    for video, match in matches.items():
        if match is None or match[0] > nearest.get(match[1], match[0]):
            continue
        if match[0] < nearest.get(match[1], match[0]):
            owners[match[1]] = []
        nearest[match[1]] = match[0]
        owners.setdefault(match[1], []).append(video)
    return owners


def _entry_name(video: str) -> _Name:
    parts = re.split(r"[/\\]", video)
    if not parts[0] or re.fullmatch(r"[A-Za-z]:", parts[0]) or ".." in parts:
        raise UsageError(f"{video!r}: leads out of the folder of the videos; a list gives paths below it")
    return _parse_name("/".join(part for part in video.split("/") if part not in ("", ".")))


def _parse_name(path: str) -> _Name:
    folder, _, name = unicodedata.normalize("NFC", path).rpartition("/")
    name = _TAR.sub("", name)
    stem, dot, ending = name.rpartition(".")
    if not stem or f"{dot}{ending}".lower() not in VIDEO_ENDINGS:
        stem = name
    classes = _classes(folder)
    return _Name(folder, name, stem, classes[-1] if classes else "")


def _stems(stem: str) -> set[str]:
    """Return the stems by which a list may name a file with this stem."""
    trimmed = _SUFFIX.sub("", stem)
    return {stem, trimmed, stem.removeprefix("v_"), trimmed.removeprefix("v_")}


@lru_cache(maxsize=1 << 16)
def _classes(folder: str) -> tuple[str, ...]:
    """Return the class folders of a path, folded; folders that only arrange a data set are left out."""
    parts = [_TAR.sub("", part) for part in folder.split("/") if part and not _is_layout(part)]
    return tuple(fold(part) or part for part in parts)


def _is_layout(folder: str) -> bool:
    name = _TAR.sub("", folder)
    words = set(re.findall(r"[a-z]+", name.lower()))
    if not name.isascii():
        return False
    # `00012.tar` is a part; a class may be called by a letter or a small number.
    of_set = name != folder and words <= _SETS and len(name) > (2 if words else 3)
    return of_set or (bool(words) and words <= _LAYOUT)


@lru_cache(maxsize=1 << 16)
def _without_tar(folder: str) -> str:
    """Strip the endings of archives from a folder's path."""
    return "/".join(_TAR.sub("", part) for part in folder.split("/"))


def _rank(target: _Name, place: _Place) -> Rank | None:
    """Return how near a place is to the target, by name, then by folders; None if it does not match."""
    name = _parse_name(place.path.replace(os.sep, "/"))
    if name.name == target.name:
        return 0, _distance(target.folder, name.folder)
    if place.is_folder:
        return (4, _distance(target.folder, name.folder)) if name.name == target.stem else None
    trimmed = _SUFFIX.sub("", name.stem)
    has_ending = target.stem != target.name
    for nearness, same in enumerate(
        (
            name.stem == target.stem,
            trimmed == target.stem,
            not has_ending and f"v_{target.stem}" in (name.stem, trimmed),
        ),
        1,
    ):
        if same:
            return nearness, _distance(target.folder, name.folder)
    return None


def _distance(listed_folder: str, folder: str) -> int:
    plain_folder = _without_tar(folder)
    if listed_folder == plain_folder:
        return 0
    if listed_folder == plain_folder.rpartition("/")[0]:
        return 1
    listed, actual = _classes(listed_folder), _classes(folder)
    return 2 if listed == actual or listed == actual[:-1] or listed[:-1] == actual else 3
