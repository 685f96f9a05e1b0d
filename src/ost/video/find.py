"""Which videos a user means by a list of files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ost.errors import UsageError
from ost.files import VIDEO_ENDINGS
from ost.video.folder import frame_images


def find_videos(places: Iterable[str | Path]) -> list[str]:
    """Files as named; for a folder every video below it, or the folder itself if it holds frame images.

    A folder that may not be read is given as it is, so that decoding it names it among the failures.
    A file named by the user is taken whatever its ending; in a folder the ending decides. Order is that of
    `places`, then of names; a video named twice is taken once.

    Raises:
        UsageError: a folder holds neither videos nor frame images.
    """
    found: dict[str, None] = {}
    for place in places:
        path = Path(place)
        if not os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir, no error where looking is forbidden
            found[str(place)] = None
            continue
        below = list(_videos_below(path))
        if not below:
            raise UsageError(f"{place}: the folder holds neither videos nor frame images")
        found |= dict.fromkeys(below)
    return list(found)


def _videos_below(folder: Path) -> Iterable[str]:
    locked: list[str] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: locked.append(str(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        videos = sorted(
            name for name in files if Path(name).suffix.lower() in VIDEO_ENDINGS and name[0] != "."
        )
        if not videos and frame_images(Path(place)):
            yield place
        yield from (str(Path(place, name)) for name in videos)
    yield from locked
