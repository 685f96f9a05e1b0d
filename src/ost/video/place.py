"""Locate a video: a file, a folder of frame images, or an archive member. Refuse what cannot be read."""

from __future__ import annotations

import stat
from pathlib import Path

from ost.archives import Member, find_member, member_folder, members, within
from ost.errors import VideoError


def located(path: str | Path) -> Path | Member:
    """Return the file, archive member or folder of frame images that holds a video.

    Raises:
        VideoError: it is missing, empty, unreadable, or neither file nor folder.
    """
    name, place = str(path), Path(path)
    member = find_member(place)
    if member is None:
        _check_readable(name, place)
        return place
    if member.size == 0:
        raise VideoError(name, "the archive breaks off before it")
    return member


def is_folder(place: Path | Member) -> bool:
    """Return whether a located video is a folder of frame images."""
    return isinstance(place, Path) and (place.is_dir() or member_folder(place) is not None)


def _check_readable(name: str, place: Path) -> None:
    try:
        mode = place.stat().st_mode
        if stat.S_ISDIR(mode):
            return
        if not stat.S_ISREG(mode):  # reading from a pipe could block forever
            raise VideoError(name, "it is neither a file nor a folder")
        with place.open("rb") as file:
            if not file.read(1):
                raise VideoError(name, "the file is empty")
    except (FileNotFoundError, NotADirectoryError) as error:
        if archive := within(place):
            if member_folder(place) is not None:
                return
            fault = members(archive[0]).broken
            cause = "there is no such file in the archive"
            raise VideoError(
                name, f"{cause}, of which not all can be read: {fault}" if fault else cause
            ) from error
        raise VideoError(name, "there is no such file") from error
    except PermissionError as error:
        raise VideoError(name, "no permission to read it") from error
    except OSError as error:
        raise VideoError(name, f"it cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL in the name
        raise VideoError(repr(name), "that is not a file name") from error
