"""Lists of labelled videos -> what is to be learned: classes, clips to train on, clips held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ost.datasets.folder import pick_shots
from ost.datasets.manifest import Clip
from ost.descriptors.pack import Pack
from ost.descriptors.spec import Spec, resolve
from ost.errors import UsageError
from ost.runs import Missing


@dataclass(frozen=True)
class Labelled:
    """Clips with the rows of the pack that they show."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def listed(self, pack: Pack) -> list[Clip]:
        """As rows of a manifest."""
        return [Clip(Path(path), pack.names[row]) for path, row in zip(self.paths, self.labels, strict=True)]


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
        pack: the classes.
        clips: to train on.
        held_out: to validate on; may be empty.
        missing: videos of the lists that cannot be used.
        notices: what the user should know of the videos, one sentence each.
    """

    pack: Pack
    clips: Labelled
    held_out: Labelled
    missing: tuple[Missing, ...] = ()
    notices: tuple[str, ...] = ()

    def check_missing(self, most: float) -> None:
        """Refuse to begin without more than this share of the videos.

        Raises:
            UsageError: more are missing.
        """
        total = len(self.clips) + len(self.held_out) + len(self.missing)
        if len(self.missing) > most * total:
            some = ", ".join(one.video for one in self.missing[:3])
            raise UsageError(
                f"{len(self.missing)} of {total} videos are not there, more than the share of {most:g} that "
                f"max_unreadable allows; the first are {some}"
            )


def make_task(
    clips: Sequence[Clip],
    held_out: Sequence[Clip],
    classes: Spec,
    shots: int | None,
    seed: int,
    missing: tuple[Missing, ...] = (),
) -> Task:
    """Pick the shots, hold the rest out, and find the classes.

    Args:
        clips: all labelled clips.
        held_out: clips to validate on; empty takes what the shots leave over.
        classes: SPEC; empty takes the labels of the clips.
        shots: clips a class to learn from; None takes all.
        seed: of the choice.
        missing: videos of the lists that cannot be used.

    Raises:
        UsageError: a class has fewer clips than shots.
        PackError: the classes lack a label.
    """
    if shots is not None:
        picked = pick_shots(clips, shots, seed)
        clips, held_out = picked.shots, held_out or picked.rest
    pack = resolve(classes or sorted({clip.label for clip in clips}))
    return Task(pack, _labelled(pack, clips), _labelled(pack, held_out), missing)


def _labelled(pack: Pack, clips: Sequence[Clip]) -> Labelled:
    labels = list(dict.fromkeys(clip.label for clip in clips))
    rows = {name: row for row, name in enumerate(pack.names)}
    chosen = pack.select(labels).classes if labels else ()
    by_label = {label: rows[item.name] for label, item in zip(labels, chosen, strict=True)}
    return Labelled(tuple(str(clip.path) for clip in clips), tuple(by_label[clip.label] for clip in clips))
