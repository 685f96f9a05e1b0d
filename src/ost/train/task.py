"""Lists of labelled videos -> what is to be learned: classes, clips to train on, clips held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ost.datasets.folder import labelled_folder, pick_shots
from ost.datasets.manifest import Clip, read_manifest, write_manifest
from ost.descriptors.pack import Pack
from ost.descriptors.spec import resolve
from ost.errors import UsageError
from ost.train.validate import Labelled
from ost.video.find import find_videos


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
        pack: the classes.
        clips: to train on.
        held_out: to validate on; may be empty.
    """

    pack: Pack
    clips: Labelled
    held_out: Labelled


def gather_clips(videos: Path | None, manifest: Path | None) -> list[Clip]:
    """The labelled clips that a user points at.

    Args:
        videos: a folder per class; or with a manifest, the folder that its paths are relative to.
        manifest: CSV with the columns path and label.

    Raises:
        UsageError: neither is given, or they cannot be read.
    """
    if manifest is not None:
        clips = read_manifest(manifest)
        if videos is None:
            return clips
        home = manifest.parent
        return [
            Clip(videos / c.path.relative_to(home), c.label) if c.path.is_relative_to(home) else c
            for c in clips
        ]
    if videos is None:
        raise UsageError("there is nothing to learn from; give --videos (a folder per class) or --manifest")
    if not videos.is_dir():
        raise UsageError(
            f"{videos}: is not a folder; --videos is a folder with a folder of videos for each class"
        )
    return labelled_folder(videos, find_videos([videos]))


def make_task(
    clips: Sequence[Clip], held_out: Sequence[Clip], classes: str, shots: int | None, seed: int, run: Path
) -> Task:
    """Pick the shots, hold the rest out, write which, and find the classes.

    Args:
        clips: all labelled clips.
        held_out: clips to validate on; empty takes what the shots leave over.
        classes: SPEC; empty takes the labels of the clips.
        shots: clips a class to learn from; None takes all.
        seed: of the choice.
        run: folder for `shots.csv` and `held-out.csv`.

    Raises:
        UsageError: a class has fewer clips than shots.
        PackError: the classes lack a label.
    """
    if shots is not None:
        picked = pick_shots(clips, shots, seed)
        clips, held_out = picked.shots, held_out or picked.rest
    labels = list(dict.fromkeys(clip.label for clip in sorted(clips, key=lambda c: c.label)))
    pack = resolve(classes or labels)
    chosen = pack.select(labels)
    pack = replace(pack if classes else chosen, notices=pack.notices)
    task = Task(pack, _labelled(pack, clips), _labelled(pack, held_out))
    write_manifest(run / "shots.csv", clips)
    if held_out:
        write_manifest(run / "held-out.csv", held_out)
    return task


def _labelled(pack: Pack, clips: Sequence[Clip]) -> Labelled:
    rows = {name: row for row, name in enumerate(pack.names)}
    found = pack.select(dict.fromkeys(clip.label for clip in clips)).classes if clips else ()
    by_label = {
        label: rows[item.name]
        for label, item in zip(dict.fromkeys(c.label for c in clips), found, strict=True)
    }
    return Labelled(tuple(str(clip.path) for clip in clips), tuple(by_label[clip.label] for clip in clips))
