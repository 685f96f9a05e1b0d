"""Validate on held-out clips, each scored once by the usual matching, split over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ost.backbones.base import Backbone
from ost.descriptors.pack import Pack
from ost.errors import VideoError
from ost.ranks import Ranks
from ost.recognition.recognizer import Recognizer
from ost.recognition.settings import Settings
from ost.train.task import Labelled


@dataclass(frozen=True)
class Validation:
    """The counts of a validation.

    Attributes:
        clips: number of clips scored.
        top1, top5: number of clips with their class first, and among the first five.
        failures: (path, cause) of unreadable clips.
    """

    clips: int
    top1: int
    top5: int
    failures: tuple[tuple[str, str], ...]

    @property
    def accuracy(self) -> float:
        """Return the share of scored clips with their class first, or 0 if none was scored."""
        return self.top1 / self.clips if self.clips else 0.0


def validate(
    backbone: Backbone,
    pack: Pack,
    held_out: Labelled,
    settings: Settings,
    ranks: Ranks,
    stop: Callable[[], bool] = lambda: False,
) -> Validation:
    """Score every held-out clip; the counts are the same on every rank.

    Args:
        backbone, pack, settings: backbone, classes and settings of the recognition.
        held_out: the clips.
        ranks: the processes that share the clips.
        stop: called for each clip; True skips the rest.
    """
    rows = range(ranks.rank, len(held_out), ranks.world)
    recognizer = Recognizer(backbone, settings, cache=False)
    results = recognizer.recognize_all([held_out.paths[i] for i in rows], pack)
    top1 = top5 = clips = 0
    failures: list[tuple[str, str]] = []
    for i, result in zip(rows, results, strict=True):
        if stop():
            break
        if isinstance(result, VideoError):
            failures.append((result.path, result.cause))
            continue
        best = [score.name for score in result.top(5)]
        name = pack.names[held_out.labels[i]]
        clips, top1, top5 = clips + 1, top1 + (best[0] == name), top5 + (name in best)
    return _sum_counts(ranks.gather((clips, top1, top5, failures)))


def _sum_counts(parts: Sequence[tuple[int, int, int, list[tuple[str, str]]]]) -> Validation:
    clips, top1, top5, failures = zip(*parts, strict=True)
    return Validation(sum(clips), sum(top1), sum(top5), tuple(f for part in failures for f in part))
