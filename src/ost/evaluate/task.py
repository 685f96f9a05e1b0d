"""What an evaluation scores: the videos and classes that a configuration means, found without importing torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ost.datasets.manifest import read_manifest
from ost.descriptors.names import sided
from ost.errors import UsageError
from ost.evaluate.config import OWN, EvaluateConfig
from ost.evaluate.protocols import OWN_PROTOCOL, PROTOCOLS, Protocol, ask, ask_own
from ost.evaluate.question import Question
from ost.runs import trained_on

MIRRORED = 10  # crops, of which half are mirrored


@dataclass(frozen=True)
class Task:
    """What there is to score.

    Attributes:
        config: what was asked.
        protocol: how the lists are counted together.
        questions: the lists.
        learned: clips that the weights were trained on, by their names, where the folder of their run tells.
        warnings: what the user should know of these, one sentence each.
    """

    config: EvaluateConfig
    protocol: Protocol
    questions: Sequence[Question]
    learned: Mapping[str, Sequence[Path]] = field(default_factory=dict[str, Sequence[Path]])
    warnings: tuple[str, ...] = ()

    @property
    def videos(self) -> int:
        """How many videos there are, each counted once."""
        return len({str(clip.path) for question in self.questions for clip in question.clips})

    @property
    def notices(self) -> list[str]:
        """What the user should know of the videos and the classes."""
        return [*self.warnings, *(line for q in self.questions for line in (*q.notices, *q.pack.notices))]


def find_task(config: EvaluateConfig) -> Task:
    """The videos and classes that a configuration means.

    Raises:
        UsageError: they cannot be found, or settings contradict each other.
        PackError: the classes cannot be used.
    """
    if config.protocol == OWN:
        protocol, questions = OWN_PROTOCOL, ask_own(config.videos, config.manifest, config.classes)
    elif config.manifest is not None:
        raise UsageError("a protocol has its own lists; --manifest goes without one, or with `own`")
    else:
        protocol = PROTOCOLS.find(config.protocol)
        questions = ask(protocol, config.videos, config.classes)
    if config.crops == MIRRORED and any(sided(question.pack.names) for question in questions):
        raise UsageError(
            f"{MIRRORED} crops mirror the picture, and these classes tell left from right; use 5"
        )
    try:
        return Task(config, protocol, questions, _learned(config.weights))
    except UsageError as error:
        warning = f"it cannot be told which videos these weights were trained on ({error})"
        return Task(config, protocol, questions, warnings=(warning,))


def _learned(weights: str | None) -> dict[str, list[Path]]:
    """The clips that weights were trained on, by their names."""
    listed = None if weights is None else trained_on(weights)
    clips: dict[str, list[Path]] = {}
    for clip in read_manifest(listed) if listed else ():
        clips.setdefault(clip.path.name, []).append(clip.path)
    return clips
