"""Find the videos in a list of files, folders and archives."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ost.archives import is_archive, members
from ost.errors import UsageError
from ost.files import IMAGE_ENDINGS, VIDEO_ENDINGS
from ost.video.folder import frame_images


class Videos(NamedTuple):
    """The videos found in files, folders and archives.

    Attributes:
        paths: the videos.
        unread: folders and archives that cannot be read, or not to their end.
    """

    paths: list[str]
    unread: list[str]


def find_videos(places: Iterable[str | Path]) -> list[str]:
    """Return files as named, and for a folder every video below it, or the folder itself if it holds frame images.

    A .tar archive is searched like a folder, and so are archives below a folder. Unreadable folders and broken
    archives are listed after the readable videos of each place, so that decoding reports them among the failures.
    A file named by the user is taken whatever its ending; in a folder the ending decides. Videos come in the order
    of `places`, then of names; a video named twice is taken once.

    Raises:
        UsageError: a folder or an archive holds neither videos nor frame images.
    """
    paths: dict[str, None] = {}
    for place in places:
        videos = search([place])
        paths |= dict.fromkeys((*videos.paths, *videos.unread))
    return list(paths)


def search(places: Iterable[str | Path]) -> Videos:
    """Find videos like `find_videos`, and list unreadable folders and archives separately.

    Raises:
        UsageError: a folder or an archive holds neither videos nor frame images.
    """
    paths, unread = dict[str, None](), dict[str, None]()
    for place in places:
        if not str(place):
            raise UsageError("an empty path is no video")
        path = Path(place)
        if is_archive(path):
            videos = _in_archive(path)
        elif os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir, no error where looking is forbidden
            videos = _in_folder(path)
        else:
            videos = Videos([str(place)], [])
        if not videos.paths and not videos.unread:
            what = "archive" if is_archive(path) else "folder"
            raise UsageError(f"{place}: the {what} holds neither videos nor frame images")
        paths |= dict.fromkeys(videos.paths)
        unread |= dict.fromkeys(videos.unread)
    return Videos(list(paths), list(unread))


def _in_folder(folder: Path) -> Videos:
    result = Videos([], [])
    for place, folders, files in os.walk(
        folder, onerror=lambda error: result.unread.append(str(error.filename))
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in files if not name.startswith("."))
        videos = [name for name in shown if _has_ending(name, VIDEO_ENDINGS)]
        if not videos and frame_images(Path(place)):
            result.paths.append(place)
        result.paths.extend(str(Path(place, name)) for name in videos)
        for archive in (Path(place, name) for name in shown):
            if is_archive(archive):
                archived = _in_archive(archive)
                result.paths.extend(archived.paths)
                result.unread.extend(archived.unread)
    return result


def _in_archive(archive: Path) -> Videos:
    index, paths = members(archive), list[str]()
    for folder, names in index.folders.items():
        videos = [name for name in names if _has_ending(name, VIDEO_ENDINGS)]
        if not videos and any(_has_ending(name, IMAGE_ENDINGS) for name in names):
            paths.append(str(archive / folder))
        paths += [str(archive / folder / name) for name in videos]
    return Videos(paths, [str(archive)] if index.broken else [])


def _has_ending(name: str, endings: frozenset[str]) -> bool:
    return Path(name).suffix.lower() in endings
