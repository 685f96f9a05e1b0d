"""Define a list of videos to evaluate, with the classes to tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ost.datasets.manifest import LabelledVideo
from ost.descriptors.pack import Pack


@dataclass(frozen=True)
class EvaluationList:
    """The videos of one list and the classes to tell apart.

    Attributes:
        title: title of the list.
        pack: the classes.
        videos: the videos that exist; their labels are classes of the pack.
        missing: the videos that do not exist.
        notices: notices about the videos for the user, one sentence each.
        unclear: video -> why its file cannot be determined.
    """

    title: str
    pack: Pack
    videos: Sequence[LabelledVideo]
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    unclear: Mapping[str, str] = field(default_factory=dict[str, str])
