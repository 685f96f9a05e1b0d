"""Labelled videos -> logits -> numbers: each video passes through the towers once, however many lists name it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ost.backbones.base import Backbone
from ost.errors import VideoError
from ost.evaluate.metrics import Bools, Floats, Ints, mean_average_precision, mean_per_class, per_class, top
from ost.evaluate.question import Question
from ost.evaluate.ways import Way, way_of
from ost.ranks import Ranks
from ost.recognition.embed import class_head
from ost.recognition.match import match
from ost.recognition.settings import Settings
from ost.recognition.store import stacked, stored_embeddings
from ost.types import ClassHead, FrameEmbeddings, Kind
from ost.video.transform import view_preprocess

AT_ONCE = 16  # videos matched together; a score does not depend on it


@dataclass(frozen=True)
class Answer:
    """The scores of one list.

    Attributes:
        title: of the list.
        names: A classes.
        paths: n videos that were scored, in the order of the list.
        logits: fp32 [n, A]; of several views the log of their mean probability.
        truth: bool [n, A], what the videos show.
        missing: videos of the list that are not there.
        unreadable: path -> cause, with the videos of which it cannot be told which file they are.
        notices: what the user should know of the classes, one sentence each.
    """

    title: str
    names: tuple[str, ...]
    paths: tuple[str, ...]
    logits: Floats
    truth: Bools
    missing: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    notices: tuple[str, ...] = ()

    @cached_property
    def labels(self) -> Ints:
        """The class of each video, [n]; of several, the likeliest by its own logits."""
        return np.where(self.truth, self.logits, -np.inf).argmax(1)

    def without(self, paths: Collection[str]) -> Answer:
        """The scores of the other videos."""
        kept = np.array([path not in paths for path in self.paths], bool)
        paths_kept = tuple(path for path, keep in zip(self.paths, kept, strict=True) if keep)
        return replace(self, paths=paths_kept, logits=self.logits[kept], truth=self.truth[kept])

    def right(self, k: int) -> Bools:
        """Whether a class of the video is among the first k, [n]."""
        return top(self.logits, self.labels, k)

    @property
    def has_several(self) -> bool:
        """Whether some video has more than one label."""
        return bool((self.truth.sum(1) > 1).any())

    def mean_per_class(self) -> float:
        """Top-1, every class counting alike."""
        return mean_per_class(self.right(1), self.labels, len(self.names))

    def by_class(self) -> dict[str, float]:
        """Top-1 of each class that some video shows."""
        shares = per_class(self.right(1), self.labels, len(self.names))
        return {name: float(s) for name, s in zip(self.names, shares, strict=True) if not np.isnan(s)}

    def mean_average_precision(self) -> float:
        """Over the probabilities of all videos, of the classes that some video shows."""
        shifted = self.logits - self.logits.max(1, keepdims=True)
        exp = np.exp(shifted)
        return mean_average_precision(exp / exp.sum(1, keepdims=True), self.truth)


def answer(
    backbone: Backbone,
    questions: Sequence[Question],
    settings: Settings,
    ways: Sequence[Way] = (),
    *,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    advance: Callable[[], None] = lambda: None,
) -> dict[Way, list[Answer]]:
    """Score every video of every list once, in one pass of the towers, in each way.

    Videos are matched in blocks that depend on the lists alone, and each rank takes whole blocks: with any number of
    ranks the scores are the same to the bit, and all ranks return all of them.

    Args:
        backbone: who sees.
        questions: the lists; a video of several is embedded once.
        settings: how videos are sampled, and how they are matched where there are no `ways`.
        ways: how they are matched.
        ranks: the processes that share the videos.
        advance: is called after each video of this rank.
    """
    view_preprocess(backbone.preprocess, settings.crops)  # refuses before all texts are embedded
    ways = ways or (way_of(settings),)
    kinds: list[Kind] = list(dict.fromkeys(kind for way in ways for kind in way.kinds))
    heads = [class_head(backbone, q.pack, kinds) for q in questions]
    wanted = [{str(clip.path) for clip in q.clips} for q in questions]
    paths = list(dict.fromkeys(str(clip.path) for q in questions for clip in q.clips))
    blocks = [paths[i : i + AT_ONCE] for i in range(0, len(paths), AT_ONCE)][ranks.rank :: ranks.world]
    found = _Scored([[{} for _ in questions] for _ in ways], {})
    for embedded in _embedded(backbone, blocks, settings, found.unreadable, advance):
        for q, (head, own) in enumerate(zip(heads, wanted, strict=True)):
            some = {path: frames for path, frames in embedded.items() if path in own}
            for w, way in enumerate(ways if some else ()):
                logits = _logits(list(some.values()), head, way).cpu().numpy()
                found.logits[w][q].update(zip(some, logits, strict=True))
    found = _merged(ranks.gather(found))
    return {
        way: [
            replace(_answer(q, own, found.unreadable), notices=head.notices)
            for q, own, head in zip(questions, logits, heads, strict=True)
        ]
        for way, logits in zip(ways, found.logits, strict=True)
    }


class _Scored(NamedTuple):
    """Logits by way, list and path, and the cause of what could not be read, by path."""

    logits: list[list[dict[str, Floats]]]
    unreadable: dict[str, str]


def _merged(shares: Sequence[_Scored]) -> _Scored:
    """The shares of all ranks as one."""
    whole, *others = shares
    for share in others:
        whole.unreadable.update(share.unreadable)
        for mine, theirs in zip(whole.logits, share.logits, strict=True):
            for own, more in zip(mine, theirs, strict=True):
                own.update(more)
    return whole


def _embedded(
    backbone: Backbone,
    blocks: Sequence[Sequence[str]],
    settings: Settings,
    unreadable: dict[str, str],
    advance: Callable[[], None],
) -> Iterator[dict[str, FrameEmbeddings]]:
    """Embeddings by path, block by block; what cannot be read is put down."""
    paths = [path for block in blocks for path in block]
    with contextlib.closing(stored_embeddings(backbone, paths, settings.views)) as results:
        for block in blocks:
            readable: dict[str, FrameEmbeddings] = {}
            for path, found in zip(block, results, strict=False):
                advance()
                if isinstance(found, VideoError):
                    unreadable[path] = found.cause
                else:
                    readable[path] = found
            yield readable


def _logits(embedded: Sequence[FrameEmbeddings], head: ClassHead, way: Way) -> Tensor:
    """[n, A] of n videos; of several views the log of the mean of their probabilities."""
    scores = match(stacked(embedded), head, method=way.method, kinds=way.kinds, eps=way.weight).logits
    views = scores.unflatten(0, (len(embedded), -1))
    count = views.shape[1]
    return views[:, 0] if count == 1 else torch.log_softmax(views, -1).logsumexp(1) - math.log(count)


def _answer(question: Question, logits: dict[str, Floats], unreadable: dict[str, str]) -> Answer:
    names = question.pack.names
    columns = {name: a for a, name in enumerate(names)}
    clips = [clip for clip in question.clips if str(clip.path) in logits]
    labels = list(dict.fromkeys(label for clip in clips for label in (clip.label, *clip.others)))
    chosen = question.pack.select(labels).names if labels else ()
    column = {label: columns[name] for label, name in zip(labels, chosen, strict=True)}
    truth = np.zeros((len(clips), len(names)), bool)
    for i, clip in enumerate(clips):
        truth[i, [column[label] for label in (clip.label, *clip.others)]] = True
    return Answer(
        question.title,
        names,
        tuple(str(clip.path) for clip in clips),
        np.stack([logits[str(clip.path)] for clip in clips])
        if clips
        else np.zeros((0, len(names)), np.float32),
        truth,
        question.missing,
        {str(c.path): unreadable[str(c.path)] for c in question.clips if str(c.path) in unreadable}
        | dict(question.unclear),
    )
