"""What is asked of an evaluation: videos, and the classes to tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ost.datasets.manifest import Clip
from ost.descriptors.pack import Pack


@dataclass(frozen=True)
class Question:
    """Videos of one list, and the classes to tell apart.

    Attributes:
        title: of the list.
        pack: the classes.
        clips: the videos that are there; their labels are of the pack.
        missing: those that are not.
        notices: what the user should know of the videos, one sentence each.
        unclear: video -> why it cannot be told which file it is.
    """

    title: str
    pack: Pack
    clips: Sequence[Clip]
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    unclear: Mapping[str, str] = field(default_factory=dict[str, str])
