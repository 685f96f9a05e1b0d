"""Turn lists of labelled videos into a training task: classes, training clips, held-out clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ost.datasets.folder import pick_shots
from ost.datasets.manifest import LabelledVideo
from ost.descriptors.pack import Pack
from ost.descriptors.spec import Spec, resolve
from ost.errors import UsageError
from ost.runs import Missing


@dataclass(frozen=True)
class Labelled:
    """Clips and their labels, which are rows of the pack."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def listed(self, pack: Pack) -> list[LabelledVideo]:
        """Return the clips as rows of a manifest."""
        return [
            LabelledVideo(Path(path), pack.names[row])
            for path, row in zip(self.paths, self.labels, strict=True)
        ]


@dataclass(frozen=True)
class TrainingTask:
    """A training task.

    Attributes:
        pack: the classes.
        clips: clips to train on.
        held_out: clips to validate on; may be empty.
        missing: videos of the lists that cannot be used.
        notices: notices about the videos for the user, one sentence each.
    """

    pack: Pack
    clips: Labelled
    held_out: Labelled
    missing: tuple[Missing, ...] = ()
    notices: tuple[str, ...] = ()

    def check_missing(self, most: float) -> None:
        """Check that no more than the share `most` of the videos is missing.

        Raises:
            UsageError: more are missing.
        """
        total = len(self.clips) + len(self.held_out) + len(self.missing)
        if len(self.missing) > most * total:
            first = ", ".join(missing.video for missing in self.missing[:3])
            raise UsageError(
                f"{len(self.missing)} of {total} videos are not there, more than the share of {most:g} that "
                f"max_unreadable allows; the first are {first}"
            )


def make_task(
    clips: Sequence[LabelledVideo],
    held_out: Sequence[LabelledVideo],
    classes: Spec,
    shots: int | None,
    seed: int,
    missing: tuple[Missing, ...] = (),
) -> TrainingTask:
    """Return a task with the shots picked, the rest held out, and the classes resolved.

    Args:
        clips: all labelled clips.
        held_out: clips to validate on; empty takes what the shots leave over.
        classes: SPEC; empty takes the labels of the clips.
        shots: training clips per class; None takes all.
        seed: seed of the choice.
        missing: videos of the lists that cannot be used.

    Raises:
        UsageError: a class has fewer clips than shots.
        PackError: the classes lack a label.
    """
    if shots is not None:
        picked = pick_shots(clips, shots, seed)
        clips, held_out = picked.shots, held_out or picked.rest
    pack = resolve(classes or sorted({clip.label for clip in clips}))
    return TrainingTask(pack, _label_rows(pack, clips), _label_rows(pack, held_out), missing)


def _label_rows(pack: Pack, clips: Sequence[LabelledVideo]) -> Labelled:
    labels = list(dict.fromkeys(clip.label for clip in clips))
    rows = {name: row for row, name in enumerate(pack.names)}
    chosen = pack.select(labels).classes if labels else ()
    by_label = {label: rows[item.name] for label, item in zip(labels, chosen, strict=True)}
    return Labelled(tuple(str(clip.path) for clip in clips), tuple(by_label[clip.label] for clip in clips))
