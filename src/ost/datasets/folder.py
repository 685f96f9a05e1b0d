"""Label videos by their folders, and pick a few per class to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ost.archives import is_archive
from ost.datasets.manifest import LabelledVideo
from ost.errors import UsageError


def labelled_folder(root: str | Path, videos: Iterable[str | Path]) -> list[LabelledVideo]:
    """Label each video with the name of its folder or .tar archive; return them in the order of their paths.

    Args:
        root: the folder of class folders.
        videos: the videos below it.

    Raises:
        UsageError: a video is in `root` itself, or there are fewer than two classes.
    """
    clips: list[LabelledVideo] = []
    label = cache(_label)
    for path in sorted(Path(video) for video in videos):
        if path.parent == Path(root) or path == Path(root):
            raise UsageError(f"{path}: lies in no folder of a class; sort the videos into one folder a class")
        clips.append(LabelledVideo(path, label(path.parent)))
    if len({clip.label for clip in clips}) < 2:
        raise UsageError(f"{root}: needs a folder of videos for each of at least two classes")
    return clips


def _label(folder: Path) -> str:
    return folder.stem if is_archive(folder) else folder.name


class Picked(NamedTuple):
    """Videos to train on, and the rest."""

    shots: list[LabelledVideo]
    rest: list[LabelledVideo]


def pick_shots(clips: Sequence[LabelledVideo], shots: int, seed: int) -> Picked:
    """Pick K videos per class at random; a class's choice depends only on its own videos and the seed.

    Raises:
        UsageError: a class has fewer than K videos.
    """
    by_label: dict[str, list[LabelledVideo]] = {}
    for clip in sorted(clips):
        by_label.setdefault(clip.label, []).append(clip)
    picked = Picked([], [])
    for label, class_clips in sorted(by_label.items()):
        if len(class_clips) < shots:
            raise UsageError(
                f"class {label!r} has {len(class_clips)} clips, fewer than the {shots} shots asked for"
            )
        digest = hashlib.sha256(label.encode()).digest()
        order = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")]).permutation(len(class_clips))
        chosen = set(order[:shots].tolist())
        for i, clip in enumerate(class_clips):
            (picked.shots if i in chosen else picked.rest).append(clip)
    return picked
