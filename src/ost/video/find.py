"""Which videos a user means by a list of files, folders and archives."""

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
    """What lies in some places.

    Attributes:
        paths: the videos.
        unread: folders and archives that cannot be read, or not to their end.
    """

    paths: list[str]
    unread: list[str]


def find_videos(places: Iterable[str | Path]) -> list[str]:
    """Files as named; for a folder every video below it, or the folder itself if it holds frame images.

    A .tar archive is searched as if it were a folder, and so are those below a folder. Folders that may not be
    read and archives that are broken are given as they are, after what can be read of each place, so that
    decoding names them among the failures. A file named by the user is taken whatever its ending; in a folder
    the ending decides. Order is that of `places`, then of names; a video named twice is taken once.

    Raises:
        UsageError: a folder or an archive holds neither videos nor frame images.
    """
    found: dict[str, None] = {}
    for place in places:
        below = search([place])
        found |= dict.fromkeys((*below.paths, *below.unread))
    return list(found)


def search(places: Iterable[str | Path]) -> Videos:
    """As `find_videos`, with what cannot be read apart.

    Raises:
        UsageError: a folder or an archive holds neither videos nor frame images.
    """
    found, unread = dict[str, None](), dict[str, None]()
    for place in places:
        path = Path(place)
        if is_archive(path):
            below = _in_archive(path)
        elif os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir, no error where looking is forbidden
            below = _below(path)
        else:
            below = Videos([str(place)], [])
        if not below.paths and not below.unread:
            what = "archive" if is_archive(path) else "folder"
            raise UsageError(f"{place}: the {what} holds neither videos nor frame images")
        found |= dict.fromkeys(below.paths)
        unread |= dict.fromkeys(below.unread)
    return Videos(list(found), list(unread))


def _below(folder: Path) -> Videos:
    found = Videos([], [])
    for place, folders, files in os.walk(
        folder, onerror=lambda error: found.unread.append(str(error.filename))
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in files if not name.startswith("."))
        videos = [name for name in shown if _ends(name, VIDEO_ENDINGS)]
        if not videos and frame_images(Path(place)):
            found.paths.append(place)
        found.paths.extend(str(Path(place, name)) for name in videos)
        for archive in (Path(place, name) for name in shown):
            if is_archive(archive):
                inside = _in_archive(archive)
                found.paths.extend(inside.paths)
                found.unread.extend(inside.unread)
    return found


def _in_archive(archive: Path) -> Videos:
    index, found = members(archive), list[str]()
    for folder, names in index.folders.items():
        videos = [name for name in names if _ends(name, VIDEO_ENDINGS)]
        if not videos and any(_ends(name, IMAGE_ENDINGS) for name in names):
            found.append(str(archive / folder))
        found += [str(archive / folder / name) for name in videos]
    return Videos(found, [str(archive)] if index.broken else [])


def _ends(name: str, endings: frozenset[str]) -> bool:
    return Path(name).suffix.lower() in endings
