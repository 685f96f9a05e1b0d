"""Score labelled videos: each passes through the towers once, however many lists name it."""

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
from ost.evaluate.lists import EvaluationList
from ost.evaluate.metrics import Bools, Floats, Ints, mean_average_precision, mean_per_class, per_class, top
from ost.evaluate.ways import Way, way_of
from ost.ranks import Ranks
from ost.recognition.embed import class_head
from ost.recognition.match import match
from ost.recognition.settings import Settings
from ost.recognition.store import concatenate, stored_embeddings
from ost.types import ClassHead, FrameEmbeddings, Kind
from ost.video.transform import view_preprocess

AT_ONCE = 16  # videos per batch of the matching; scores do not depend on it


@dataclass(frozen=True)
class ListScores:
    """The scores of one list.

    Attributes:
        title: title of the list.
        names: names of the A classes.
        paths: paths of the n scored videos, in the order of the list.
        logits: fp32 [n, A]; for several views, the log of their mean probability.
        truth: bool [n, A], the classes of each video.
        missing: videos of the list that do not exist.
        unreadable: path -> cause, including videos whose file cannot be determined.
        notices: notices about the classes for the user, one sentence each.
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
        """Return the class of each video, [n]; for a video of several classes, the one with the largest logit."""
        return np.where(self.truth, self.logits, -np.inf).argmax(1)

    def without(self, paths: Collection[str]) -> ListScores:
        """Return the scores without these videos."""
        kept = np.array([path not in paths for path in self.paths], bool)
        paths_kept = tuple(path for path, keep in zip(self.paths, kept, strict=True) if keep)
        return replace(self, paths=paths_kept, logits=self.logits[kept], truth=self.truth[kept])

    def right(self, k: int) -> Bools:
        """Return whether a class of the video is among the first k, [n]."""
        return top(self.logits, self.labels, k)

    @property
    def has_several(self) -> bool:
        """Return whether some video has more than one label."""
        return bool((self.truth.sum(1) > 1).any())

    def mean_per_class(self) -> float:
        """Return top-1 averaged over the classes, each with equal weight."""
        return mean_per_class(self.right(1), self.labels, len(self.names))

    def by_class(self) -> dict[str, float]:
        """Return the top-1 of each class that some video shows."""
        shares = per_class(self.right(1), self.labels, len(self.names))
        return {name: float(s) for name, s in zip(self.names, shares, strict=True) if not np.isnan(s)}

    def mean_average_precision(self) -> float:
        """Return the mAP of the probabilities of all videos, over the classes that some video shows."""
        shifted = self.logits - self.logits.max(1, keepdims=True)
        exp = np.exp(shifted)
        return mean_average_precision(exp / exp.sum(1, keepdims=True), self.truth)


def score_lists(
    backbone: Backbone,
    lists: Sequence[EvaluationList],
    settings: Settings,
    ways: Sequence[Way] = (),
    *,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    advance: Callable[[], None] = lambda: None,
) -> dict[Way, list[ListScores]]:
    """Score every video of every list in each way of matching, in one pass of the towers.

    Videos are matched in blocks that depend on the lists alone, and each rank takes whole blocks. With any number of
    ranks the scores are the same to the bit, and every rank returns all scores.

    Args:
        backbone: the backbone that embeds the videos and classes.
        lists: the lists; a video of several lists is embedded once.
        settings: sampling, and the way of matching if `ways` is empty.
        ways: the ways of matching.
        ranks: the processes that share the videos.
        advance: called after each video of this rank.
    """
    # Raises on unusable crops, before the texts are embedded.
    view_preprocess(backbone.preprocess, settings.crops)
    ways = ways or (way_of(settings),)
    kinds: list[Kind] = list(dict.fromkeys(kind for way in ways for kind in way.kinds))
    heads = [class_head(backbone, q.pack, kinds) for q in lists]
    list_paths = [{str(clip.path) for clip in q.videos} for q in lists]
    paths = list(dict.fromkeys(str(clip.path) for q in lists for clip in q.videos))
    blocks = [paths[i : i + AT_ONCE] for i in range(0, len(paths), AT_ONCE)][ranks.rank :: ranks.world]
    scored = _Scored([[{} for _ in lists] for _ in ways], {})
    for embedded in _embed_blocks(backbone, blocks, settings, scored.unreadable, advance):
        for q, (head, members) in enumerate(zip(heads, list_paths, strict=True)):
            listed = {path: frames for path, frames in embedded.items() if path in members}
            for w, way in enumerate(ways if listed else ()):
                logits = _logits(list(listed.values()), head, way).cpu().numpy()
                scored.logits[w][q].update(zip(listed, logits, strict=True))
    scored = _merge(ranks.gather(scored))
    return {
        way: [
            replace(_answer(q, by_path, scored.unreadable), notices=head.notices)
            for q, by_path, head in zip(lists, logits, heads, strict=True)
        ]
        for way, logits in zip(ways, scored.logits, strict=True)
    }


class _Scored(NamedTuple):
    """Logits by way, list and path, and path -> cause of unreadable videos."""

    logits: list[list[dict[str, Floats]]]
    unreadable: dict[str, str]


def _merge(shares: Sequence[_Scored]) -> _Scored:
    """Merge the scores of all ranks into those of the first."""
    merged, *others = shares
    for share in others:
        merged.unreadable.update(share.unreadable)
        for merged_lists, lists in zip(merged.logits, share.logits, strict=True):
            for target, source in zip(merged_lists, lists, strict=True):
                target.update(source)
    return merged


def _embed_blocks(
    backbone: Backbone,
    blocks: Sequence[Sequence[str]],
    settings: Settings,
    unreadable: dict[str, str],
    advance: Callable[[], None],
) -> Iterator[dict[str, FrameEmbeddings]]:
    """Yield path -> embeddings of each block; add path -> cause of unreadable videos to `unreadable`."""
    paths = [path for block in blocks for path in block]
    with contextlib.closing(stored_embeddings(backbone, paths, settings.sampled)) as results:
        for block in blocks:
            readable: dict[str, FrameEmbeddings] = {}
            for path, result in zip(block, results, strict=False):
                advance()
                if isinstance(result, VideoError):
                    unreadable[path] = result.cause
                else:
                    readable[path] = result
            yield readable


def _logits(embedded: Sequence[FrameEmbeddings], head: ClassHead, way: Way) -> Tensor:
    """Return the logits [n, A] of n videos; for several views, the log of their mean probability."""
    scores = match(concatenate(embedded), head, match=way.match, kinds=way.kinds, eps=way.weight).logits
    views = scores.unflatten(0, (len(embedded), -1))
    count = views.shape[1]
    return views[:, 0] if count == 1 else torch.log_softmax(views, -1).logsumexp(1) - math.log(count)


def _answer(video_list: EvaluationList, logits: dict[str, Floats], unreadable: dict[str, str]) -> ListScores:
    names = video_list.pack.names
    columns = {name: a for a, name in enumerate(names)}
    clips = [clip for clip in video_list.videos if str(clip.path) in logits]
    labels = list(dict.fromkeys(label for clip in clips for label in (clip.label, *clip.others)))
    chosen = video_list.pack.select(labels).names if labels else ()
    column = {label: columns[name] for label, name in zip(labels, chosen, strict=True)}
    truth = np.zeros((len(clips), len(names)), bool)
    for i, clip in enumerate(clips):
        truth[i, [column[label] for label in (clip.label, *clip.others)]] = True
    return ListScores(
        video_list.title,
        names,
        tuple(str(clip.path) for clip in clips),
        np.stack([logits[str(clip.path)] for clip in clips])
        if clips
        else np.zeros((0, len(names)), np.float32),
        truth,
        video_list.missing,
        {str(c.path): unreadable[str(c.path)] for c in video_list.videos if str(c.path) in unreadable}
        | dict(video_list.unclear),
    )
