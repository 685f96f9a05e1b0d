"""Run a configured evaluation: load the backbone and score every way of matching."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ost.activity import activity
from ost.backbones.base import Backbone
from ost.backbones.load import load_backbone, original_of
from ost.errors import VideoError
from ost.evaluate.config import EvaluateConfig
from ost.evaluate.run import ListScores, score_lists
from ost.evaluate.summary import Summary, summary
from ost.evaluate.task import EvaluationTask
from ost.evaluate.ways import MEAN_POOL, Way, ablation, way_of
from ost.ranks import Ranks
from ost.runs import ABSENT, Missing

Advance = Callable[[], None]
UNTUNED = "untuned: "


@dataclass(frozen=True)
class Measured:
    """The results of an evaluation.

    Attributes:
        task: the videos and classes.
        backbone: the backbone that embedded the videos.
        requested: the requested way of matching.
        answers: scores by way, in the order of the lists; always with the mean-pool baseline.
        untuned: name and mean-pool scores of the weights that tuned ones started from; None if not requested.
        seconds: wall-clock time of the pass over the videos, without loading weights.
        ranks: number of processes.
        trained: scored videos that the weights were trained on, as recorded in the folder of their run.
    """

    task: EvaluationTask
    backbone: Backbone
    requested: Way
    answers: dict[Way, list[ListScores]]
    untuned: tuple[str, list[ListScores]] | None
    seconds: float
    ranks: int
    trained: frozenset[str] = frozenset()

    @property
    def lists(self) -> list[ListScores]:
        """Return the scores of the requested way of matching."""
        return self.answers[self.requested]

    @property
    def baseline(self) -> list[ListScores] | None:
        """Return the scores of mean-pooling and names, or None if that is the requested way."""
        return None if self.requested == MEAN_POOL else self.answers[MEAN_POOL]

    @property
    def scored(self) -> int:
        """Return the number of scored videos, each counted once."""
        return len({path for answer in self.lists for path in answer.paths})

    @property
    def missing(self) -> list[Missing]:
        """Return the videos of each list that were not scored: the unreadable ones, then the missing ones."""
        unreadable = [Missing(a.title, *fault) for a in self.lists for fault in a.unreadable.items()]
        absent = [Missing(a.title, video, ABSENT) for a in self.lists for video in a.missing]
        return unreadable + absent

    @property
    def notices(self) -> list[str]:
        """Return the notices for the user, each sentence once."""
        lines = (*self.task.notices, *(line for answer in self.lists for line in answer.notices))
        return list(dict.fromkeys(lines))

    @property
    def lost(self) -> list[VideoError]:
        """Return an error for each video that was not scored, each once."""
        causes = {missing.video: missing.cause for missing in reversed(self.missing)}
        return [VideoError(video, cause) for video, cause in reversed(causes.items())]

    def summaries(self) -> dict[str, Summary]:
        """Return the summary of every way of matching, the requested one first.

        Raises:
            UsageError: no video could be read.
        """
        by_way = {str(way): self._summary(answers) for way, answers in self.answers.items()}
        if self.untuned:
            by_way[f"{UNTUNED}{self.untuned[0]}"] = self._summary(self.untuned[1])
        return by_way

    def untrained(self) -> Summary | None:
        """Return the summary without the videos that the weights were trained on, or None if no video is left."""
        others = [answer.without(self.trained) for answer in self.lists]
        return self._summary(others) if any(answer.paths for answer in others) else None

    def _summary(self, answers: Sequence[ListScores]) -> Summary:
        protocol = self.task.protocol
        return summary(answers, harmonic=protocol.combine == "harmonic", precision=protocol.precision)


def load_models(
    config: EvaluateConfig, device: str, notify: Callable[[str], None]
) -> tuple[Backbone, str | None]:
    """Load the backbone of a configuration; return it and the name of the untuned weights, if requested.

    Raises:
        UsageError, WeightsError: see `load_backbone`.
    """
    untuned = original_of(config.weights, config.blend_with, notify) if config.vanilla else None
    backbone = load_backbone(
        config.backbone,
        config.weights,
        blend=config.blend,
        blend_with=config.blend_with if config.blend is not None else None,
        device=device,
        dtype=config.dtype,
        notify=notify,
    )
    return backbone, untuned


def measure(
    task: EvaluationTask,
    backbone: Backbone,
    untuned: Backbone | None = None,
    *,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    advance: Advance = lambda: None,
) -> Measured:
    """Score the videos of a task in the requested way and in those it is compared with."""
    settings, requested = task.config.settings, way_of(task.config.settings)
    others = ablation(settings.eps) if task.config.ablate else ()
    ways = tuple(dict.fromkeys((requested, MEAN_POOL, *others)))
    started = time.perf_counter()
    answers = score_lists(backbone, task.lists, settings, ways, ranks=ranks, advance=advance)
    seconds = time.perf_counter() - started
    untuned_scores = None
    if untuned is not None:
        with activity("evaluating the untuned weights", task.videos // ranks.world) as evaluating:
            untuned_answers = score_lists(
                untuned, task.lists, settings, (MEAN_POOL,), ranks=ranks, advance=evaluating.advance
            )
        untuned_scores = untuned.name, untuned_answers[MEAN_POOL]
    scored = {path for scores in answers[requested] for path in scores.paths}
    trained = frozenset(path for path in scored if _is_among(path, task.learned))
    return Measured(task, backbone, requested, answers, untuned_scores, seconds, ranks.world, trained)


def _is_among(path: str, clips: Mapping[str, Sequence[Path]]) -> bool:
    """Return whether a video is one of these clips, keyed by file name; only those of its name are resolved."""
    video = Path(path)
    namesakes = clips.get(video.name, ())
    return bool(namesakes) and video.resolve() in {clip.resolve() for clip in namesakes}
