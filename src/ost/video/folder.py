"""Read a folder of frame images like a video, in the order of their numbers."""

from __future__ import annotations

import errno
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ost.archives import Member, member_folder, members, open_member, within
from ost.errors import VideoError
from ost.files import IMAGE_ENDINGS
from ost.types import Frames, Preprocess
from ost.video.container import PASSING, READ_FAILED
from ost.video.picture import check_size, scaled_rgb


def frame_images(folder: Path) -> list[Path]:
    """Return the images directly in a folder, sorted so that frame_10 follows frame_9."""
    inside = member_folder(folder)
    files = folder.iterdir() if inside is None else (folder / name for name in inside)
    images = (p for p in files if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith("."))
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", path.name)  # text and digits in turn
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def read_folder(
    folder: Path, pick: Callable[[int], list[int]], preprocess: Preprocess | None, min_decoded: float
) -> Frames:
    """Return sampled frames of a folder of images; unreadable images are left out and counted.

    Raises:
        VideoError: there are no images, or too few can be read.
    """
    try:
        images = frame_images(folder)
    except PermissionError as error:
        raise VideoError(folder, "no permission to read it") from error
    archive, inside = within(folder), member_folder(folder) or {}
    trouble = members(archive[0]).trouble if archive else ""
    if not images:
        what = "archive itself" if archive and not archive[1] else "folder"
        raise VideoError(folder, trouble or f"the {what} holds no frame images")
    readable, pictures, disk_errors = list(images), dict[Path, np.ndarray](), list[OSError]()
    while readable:
        chosen = [readable[i] for i in pick(len(readable))]
        broken: set[Path] = set()
        for path in dict.fromkeys(chosen):
            if path not in pictures:
                picture = _read_image(path, inside.get(path.name), preprocess, disk_errors)
                if picture is None:
                    broken.add(path)
                else:
                    pictures[path] = picture
        if not broken:
            break
        readable = [path for path in readable if path not in broken]
    if len(readable) < max(1, min_decoded * len(images)):
        raise VideoError(folder, f"only {len(readable)} of {len(images)} frame images can be read")
    notices = (
        ()
        if len(readable) == len(images)
        else (f"{len(readable)} of {len(images)} frame images can be read",)
    )
    notices = (*notices, f"of its archive: {trouble}") if trouble else notices
    notices = (*notices, READ_FAILED) if disk_errors else notices
    stack = [pictures[readable[i]] for i in pick(len(readable))]
    if len({picture.shape for picture in stack}) > 1:
        raise VideoError(folder, "its frame images differ in size")
    return Frames(
        pixels=np.stack(stack),
        times=(math.nan,) * len(stack),
        path=str(folder),
        decoded=len(readable),
        notices=notices,
    )


def _read_image(
    path: Path, member: Member | None, preprocess: Preprocess | None, disk_errors: list[OSError]
) -> np.ndarray | None:
    """Return an image, None if it cannot be read; add the errors of the disk and not of the image to `disk_errors`."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(open_member(member) if member else path) as image:
                check_size(path, *image.size)
                return scaled_rgb(np.asarray(ImageOps.exif_transpose(image).convert("RGB")), preprocess)
    except Exception as error:  # Pillow's readers raise whatever their parsing raises
        if isinstance(error, OSError) and error.errno in (errno.EIO, *PASSING):
            disk_errors.append(error)
        return None
