"""What an evaluation scores: the videos and classes that a configuration means, found without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ost.descriptors.names import sided
from ost.errors import UsageError
from ost.evaluate.config import OWN, EvaluateConfig
from ost.evaluate.protocols import OWN_PROTOCOL, PROTOCOLS, Protocol, ask, ask_own
from ost.evaluate.question import Question

MIRRORED = 10  # crops, of which half are mirrored


@dataclass(frozen=True)
class Task:
    """What there is to score.

    Attributes:
        config: what was asked.
        protocol: how the lists are counted together.
        questions: the lists.
    """

    config: EvaluateConfig
    protocol: Protocol
    questions: Sequence[Question]

    @property
    def videos(self) -> int:
        """How many videos there are, each counted once."""
        return len({str(clip.path) for question in self.questions for clip in question.clips})

    @property
    def notices(self) -> list[str]:
        """What the user should know of the videos and the classes."""
        return [line for q in self.questions for line in (*q.notices, *q.pack.notices)]


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
    return Task(config, protocol, questions)
