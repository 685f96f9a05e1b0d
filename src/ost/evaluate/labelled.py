"""What a pack does on labelled clips: accuracy with names alone, spatial, temporal, and both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ost.datasets.manifest import Clip
from ost.descriptors.pack import Pack, PackClass
from ost.errors import PackError, VideoError
from ost.recognition.embed import class_head
from ost.recognition.match import match
from ost.recognition.prediction import rank
from ost.recognition.recognizer import Recognizer
from ost.types import BOTH, ClassHead, Kind

Ways = dict[str, tuple[ClassHead, tuple[Kind, ...]]]


@dataclass(frozen=True)
class Accuracy:
    """Right answers on labelled clips.

    Attributes:
        clips: how many clips were scored.
        classes: how many classes they were told apart from.
        top1, top5: right answers among the first and the first five, by what was matched: "names", "spatial",
            "temporal", "both".
        failures: the clips that could not be used.
    """

    clips: int
    classes: int
    top1: dict[str, int]
    top5: dict[str, int]
    failures: tuple[VideoError, ...]


def of_labels(pack: Pack, clips: Sequence[Clip], *, only_labelled: bool) -> Pack:
    """The pack's classes, or only those that some clip shows.

    Raises:
        PackError: the pack lacks a label.
    """
    shown = pack.select(dict.fromkeys(clip.label for clip in clips))
    return shown if only_labelled else pack


def accuracy(
    recognizer: Recognizer,
    pack: Pack,
    clips: Sequence[Clip],
    advance: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Score clips in one pass of the image tower.

    Args:
        recognizer: backbone and sampling.
        pack: holds the label of every clip, as a name or a label.
        clips: what to score.
        advance: is called after each clip.
    """
    ways = _ways(recognizer, pack)
    top1, top5 = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    failures: list[VideoError] = []
    results = recognizer.recognize_all([clip.path for clip in clips], pack)
    for clip, result in zip(clips, results, strict=True):
        advance()
        if isinstance(result, VideoError):
            failures.append(result)
            continue
        label = pack.find(clip.label)
        if label is None:
            raise PackError(f"pack {pack.name!r} has no class {clip.label!r}")
        for way, (head, kinds) in ways.items():
            scores = match(result.embeddings, head, kinds=kinds, eps=recognizer.settings.eps)
            best = [score.name for score in rank(scores)[:5]]
            top1[way] += best[0] == label.name
            top5[way] += label.name in best
    return Accuracy(len(clips) - len(failures), len(pack), top1, top5, tuple(failures))


def _ways(recognizer: Recognizer, pack: Pack) -> Ways:
    names = Pack(pack.name, tuple(PackClass(item.name, label=item.label) for item in pack.classes))
    both = recognizer.head(pack)
    return {
        # Without descriptors every kind is the template around the name.
        "names": (class_head(recognizer.backbone, names, ("spatial",)), ("spatial",)),
        "spatial": (both, ("spatial",)),
        "temporal": (both, ("temporal",)),
        "both": (both, BOTH),
    }
