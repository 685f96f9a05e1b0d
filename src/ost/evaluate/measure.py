"""A configured evaluation, carried out: videos found, towers loaded, every way of matching scored."""

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
from ost.evaluate.run import Answer, answer
from ost.evaluate.summary import Summary, summary
from ost.evaluate.task import Task
from ost.evaluate.ways import MEAN_POOL, Way, ablation, way_of
from ost.ranks import Ranks
from ost.runs import ABSENT, Missing

Advance = Callable[[], None]
UNTUNED = "untuned: "


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        task: what was scored.
        backbone: who saw.
        asked: the way of matching that was asked for.
        answers: scores by way, in the order of the lists; always with the mean-pool baseline.
        untuned: name and mean-pool scores of the weights that tuned ones started from; None if not asked for.
        seconds: wall clock of the pass over the videos, without the loading of weights.
        ranks: how many processes shared it.
        trained: scored videos that the weights learned from, as far as the folder of their run tells.
    """

    task: Task
    backbone: Backbone
    asked: Way
    answers: dict[Way, list[Answer]]
    untuned: tuple[str, list[Answer]] | None
    seconds: float
    ranks: int
    trained: frozenset[str] = frozenset()

    @property
    def lists(self) -> list[Answer]:
        """The scores that were asked for."""
        return self.answers[self.asked]

    @property
    def baseline(self) -> list[Answer] | None:
        """The same videos by mean-pooling and names; None where that was asked for."""
        return None if self.asked == MEAN_POOL else self.answers[MEAN_POOL]

    @property
    def scored(self) -> int:
        """How many videos were scored, each counted once."""
        return len({path for answer in self.lists for path in answer.paths})

    @property
    def missing(self) -> list[Missing]:
        """What was not scored of each list: videos that could not be read, then those that are not there."""
        unreadable = [Missing(a.title, *found) for a in self.lists for found in a.unreadable.items()]
        absent = [Missing(a.title, video, ABSENT) for a in self.lists for video in a.missing]
        return unreadable + absent

    @property
    def notices(self) -> list[str]:
        """What the user should know, each sentence once."""
        lines = (*self.task.notices, *(line for found in self.lists for line in found.notices))
        return list(dict.fromkeys(lines))

    @property
    def lost(self) -> list[VideoError]:
        """Videos that were not scored, each once."""
        causes = {one.video: one.cause for one in reversed(self.missing)}
        return [VideoError(video, cause) for video, cause in reversed(causes.items())]

    def summaries(self) -> dict[str, Summary]:
        """The numbers by what was matched and how: what was asked for first.

        Raises:
            UsageError: no video could be read.
        """
        found = {str(way): self._summary(answers) for way, answers in self.answers.items()}
        if self.untuned:
            found[f"{UNTUNED}{self.untuned[0]}"] = self._summary(self.untuned[1])
        return found

    def untrained(self) -> Summary | None:
        """The numbers that were asked for without the videos that the weights learned from; None if none is left."""
        others = [answer.without(self.trained) for answer in self.lists]
        return self._summary(others) if any(answer.paths for answer in others) else None

    def _summary(self, answers: Sequence[Answer]) -> Summary:
        protocol = self.task.protocol
        return summary(answers, harmonic=protocol.combine == "harmonic", precision=protocol.precision)


def load(config: EvaluateConfig, device: str, tell: Callable[[str], None]) -> tuple[Backbone, str | None]:
    """The backbone of a configuration, and the name of the untuned weights where they are asked for too.

    Raises:
        UsageError, WeightsError: see `load_backbone`.
    """
    untuned = original_of(config.weights, config.blend_with, tell) if config.vanilla else None
    backbone = load_backbone(
        config.backbone,
        config.weights,
        blend_ratio=config.blend,
        original=config.blend_with if config.blend is not None else None,
        device=device,
        dtype=config.dtype,
        tell=tell,
    )
    return backbone, untuned


def measure(
    task: Task,
    backbone: Backbone,
    untuned: Backbone | None = None,
    *,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    advance: Advance = lambda: None,
) -> Measured:
    """Score the videos of a task in the way that is asked for and in those it is compared with."""
    settings, asked = task.config.settings, way_of(task.config.settings)
    others = ablation(settings.eps) if task.config.ablate else ()
    ways = tuple(dict.fromkeys((asked, MEAN_POOL, *others)))
    started = time.perf_counter()
    answers = answer(backbone, task.questions, settings, ways, ranks=ranks, advance=advance)
    seconds = time.perf_counter() - started
    also = None
    if untuned is not None:
        with activity("evaluating the untuned weights", task.videos // ranks.world) as evaluating:
            found = answer(
                untuned, task.questions, settings, (MEAN_POOL,), ranks=ranks, advance=evaluating.advance
            )
        also = untuned.name, found[MEAN_POOL]
    scored = {path for found in answers[asked] for path in found.paths}
    trained = frozenset(path for path in scored if _is_among(path, task.learned))
    return Measured(task, backbone, asked, answers, also, seconds, ranks.world, trained)


def _is_among(path: str, clips: Mapping[str, Sequence[Path]]) -> bool:
    """Whether a video is one of these clips, by name; only those of its name are looked up."""
    own = Path(path)
    alike = clips.get(own.name, ())
    return bool(alike) and own.resolve() in {clip.resolve() for clip in alike}
