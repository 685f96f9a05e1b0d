"""Labelled videos -> logits -> numbers: each video passes through the towers once, however many lists name it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ost.backbones.base import Backbone
from ost.datasets.manifest import Clip
from ost.descriptors.pack import Pack
from ost.errors import VideoError
from ost.evaluate.metrics import Bools, Floats, Ints, mean_average_precision, mean_per_class, per_class, top
from ost.recognition.embed import class_head
from ost.recognition.match import match
from ost.recognition.recognizer import Settings
from ost.recognition.store import Views, stacked, stored_embeddings
from ost.types import ClassHead, FrameEmbeddings

AT_ONCE = 16  # videos matched together; a score does not depend on it


@dataclass(frozen=True)
class Question:
    """Videos of one list, and the classes to tell apart.

    Attributes:
        title: of the list.
        pack: the classes.
        clips: the videos that are there; their labels are of the pack.
        missing: those that are not.
    """

    title: str
    pack: Pack
    clips: Sequence[Clip]
    missing: tuple[str, ...] = ()


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
        unreadable: path -> cause.
    """

    title: str
    names: tuple[str, ...]
    paths: tuple[str, ...]
    logits: Floats
    truth: Bools
    missing: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def labels(self) -> Ints:
        """The class of each video, [n]; of several, the likeliest by its own logits."""
        return np.where(self.truth, self.logits, -np.inf).argmax(1)

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
    advance: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Score every video of every list once.

    Args:
        backbone, settings: who sees what, and how it is matched.
        questions: the lists; a video of several is embedded once.
        advance: is called after each video.
    """
    heads = [class_head(backbone, q.pack, settings.prompted) for q in questions]
    paths = list(dict.fromkeys(str(clip.path) for q in questions for clip in q.clips))
    views = Views(settings.frames, settings.clips, settings.crops, settings.sampling, settings.min_decoded)
    wanted = [{str(clip.path) for clip in q.clips} for q in questions]
    logits: list[dict[str, Floats]] = [{} for _ in questions]
    unreadable: dict[str, str] = {}
    for batch in _batches(backbone, paths, views, unreadable, advance):
        for head, own, found in zip(heads, wanted, logits, strict=True):
            some = {path: embedded for path, embedded in batch.items() if path in own}
            if some:
                rows = _logits(list(some.values()), head, settings)
                found |= {path: row.numpy() for path, row in zip(some, rows.cpu(), strict=True)}
    return [_answer(q, found, unreadable) for q, found in zip(questions, logits, strict=True)]


def _batches(
    backbone: Backbone,
    paths: Sequence[str],
    views: Views,
    unreadable: dict[str, str],
    advance: Callable[[], None],
) -> Iterator[dict[str, FrameEmbeddings]]:
    """Embeddings by path, some videos at a time; what cannot be read is put down."""
    batch: dict[str, FrameEmbeddings] = {}
    for path, found in zip(paths, stored_embeddings(backbone, paths, views), strict=True):
        advance()
        if isinstance(found, VideoError):
            unreadable[path] = found.cause
            continue
        batch[path] = found
        if len(batch) == AT_ONCE:
            yield batch
            batch = {}
    if batch:
        yield batch


def _logits(embedded: Sequence[FrameEmbeddings], head: ClassHead, settings: Settings) -> Tensor:
    """[n, A] of n videos; of several views the log of the mean of their probabilities."""
    scores = match(
        stacked(embedded), head, method=settings.method, kinds=settings.kinds, eps=settings.eps
    ).logits
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
        {str(c.path): unreadable[str(c.path)] for c in question.clips if str(c.path) in unreadable},
    )
