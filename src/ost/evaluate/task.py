"""Resolve the videos and classes of an evaluation, without importing torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ost.datasets.manifest import read_manifest
from ost.descriptors.names import sided
from ost.errors import UsageError
from ost.evaluate.config import OWN, EvaluateConfig
from ost.evaluate.lists import EvaluationList
from ost.evaluate.protocols import OWN_PROTOCOL, PROTOCOLS, Protocol, own_lists, protocol_lists
from ost.runs import trained_on

MIRRORED = 10  # crops, of which half are mirrored


@dataclass(frozen=True)
class EvaluationTask:
    """The videos and classes to score.

    Attributes:
        config: the settings.
        protocol: the protocol, which says how the numbers of the lists combine.
        lists: the lists.
        learned: file name -> clips that the weights were trained on, as recorded in the folder of their run.
        warnings: warnings about `learned` for the user, one sentence each.
    """

    config: EvaluateConfig
    protocol: Protocol
    lists: Sequence[EvaluationList]
    learned: Mapping[str, Sequence[Path]] = field(default_factory=dict[str, Sequence[Path]])
    warnings: tuple[str, ...] = ()

    @property
    def videos(self) -> int:
        """Return the number of videos, each counted once."""
        return len({str(clip.path) for video_list in self.lists for clip in video_list.videos})

    @property
    def notices(self) -> list[str]:
        """Return the notices about the videos and classes for the user."""
        return [*self.warnings, *(line for q in self.lists for line in (*q.notices, *q.pack.notices))]


def find_task(config: EvaluateConfig) -> EvaluationTask:
    """Return the videos and classes that a configuration selects.

    Raises:
        UsageError: they cannot be found, or settings contradict each other.
        PackError: the classes cannot be used.
    """
    if config.protocol == OWN:
        protocol, lists = OWN_PROTOCOL, own_lists(config.videos, config.manifest, config.classes)
    elif config.manifest is not None:
        raise UsageError("a protocol has its own lists; --manifest goes without one, or with `own`")
    else:
        protocol = PROTOCOLS.find(config.protocol)
        lists = protocol_lists(protocol, config.videos, config.classes)
    if config.crops == MIRRORED and any(sided(video_list.pack.names) for video_list in lists):
        raise UsageError(
            f"{MIRRORED} crops mirror the picture, and these classes tell left from right; use 5"
        )
    try:
        return EvaluationTask(config, protocol, lists, _trained_clips(config.weights))
    except UsageError as error:
        warning = f"it cannot be told which videos these weights were trained on ({error})"
        return EvaluationTask(config, protocol, lists, warnings=(warning,))


def _trained_clips(weights: str | None) -> dict[str, list[Path]]:
    """Return file name -> clips that the weights were trained on."""
    manifest = None if weights is None else trained_on(weights)
    clips: dict[str, list[Path]] = {}
    for clip in read_manifest(manifest) if manifest else ():
        clips.setdefault(clip.path.name, []).append(clip.path)
    return clips
