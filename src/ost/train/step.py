"""The gradient of one optimiser step, the same however it is cut into chunks and over ranks.

A contrastive loss needs all embeddings of its batch at once, but not all activations: the embeddings are computed
in chunks, the loss gives their gradient, and each chunk is computed again to carry it on (GradCache, Gao et
al., RepL4NLP 2021). Ranks hand each other embeddings, never activations. Every rank sees the loss of the whole
batch, takes the gradient of its own embeddings, and the parameters' gradients are added over ranks: that is the
gradient of one process on the same batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ost.backbones.base import frame_embeddings
from ost.ranks import Ranks
from ost.recognition.match import match
from ost.train.data import Chunk
from ost.train.learner import Learner
from ost.train.loss import over_classes, symmetric_kl
from ost.train.plan import Step
from ost.types import ClassHead, Kind

T = TypeVar("T")
TEXTS_AT_ONCE = 64


class Replayed:
    """Embeddings of many inputs, chunk by chunk, and their gradient carried on to the parameters.

    Args:
        function: an input -> embeddings [n, ...].
        inputs: the chunks.
        learns: whether a gradient is wanted at all.
        keep: keep the graphs of all chunks instead of computing each twice; a single chunk's is kept anyhow.
        like: embeddings of no input, [0, ...].
    """

    def __init__(
        self, function: Callable[[T], Tensor], inputs: Sequence[T], *, learns: bool, keep: bool, like: Tensor
    ) -> None:
        self._function, self._inputs, self._learns = function, inputs, learns
        self._kept = keep or len(inputs) == 1
        with torch.set_grad_enabled(learns and self._kept):
            self._outputs = [function(part) for part in inputs]
        self.leaf = torch.cat([like, *(output.detach() for output in self._outputs)]).requires_grad_(learns)
        self._sizes = [len(output) for output in self._outputs]
        if not self._kept:
            self._outputs = []

    def carry_on(self) -> None:
        """Pass the gradient that the leaf has received to the parameters."""
        if not self._learns or self.leaf.grad is None:
            return
        for i, grad in enumerate(self.leaf.grad.split(self._sizes) if self._sizes else ()):
            output = self._outputs[i] if self._kept else self._function(self._inputs[i])
            output.backward(grad)


def step_gradient(
    learner: Learner, step: Step, chunks: Iterator[Chunk], ranks: Ranks
) -> tuple[float, list[Chunk]]:
    """Leave the gradient of an optimiser step in the parameters.

    Args:
        learner: whose gradients are clear.
        step: what this rank does.
        chunks: the next chunks of the loader, in its order.
        ranks: who takes part.

    Returns:
        The loss, averaged over all clips of the step, and the chunks that it was made of on this rank.
    """
    contrastive = learner.config.loss == "contrastive"
    total, seen = 0.0, list[Chunk]()
    for share in step:
        own = [next(chunks) for _ in share.chunks]
        seen += own
        if contrastive:
            loss = _contrastive(learner, own, share.weight, ranks)
        else:
            loss = _classes(learner, own, share.weight, ranks)
        total += share.weight * loss
    for parameter in learner.parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        ranks.sum(parameter.grad)
    return total, seen


def _contrastive(learner: Learner, own: list[Chunk], weight: float, ranks: Ranks) -> float:
    """A batch's clips against the classes of the batch; see `symmetric_kl`."""
    labels, counts = _all_labels(own, ranks)
    classes, columns = torch.unique(labels, return_inverse=True)
    names: list[int] = classes.tolist()
    keep = not learner.config.replay
    clips = Replayed(
        learner.embed_chunk, own, learns=learner.trains_image, keep=keep, like=_nothing(learner, clips=True)
    )
    raw = _with_others(clips.leaf, counts, ranks)
    texts = _Texts(learner, names, ranks)
    head = learner.head(names, texts.raw)
    # Classes that several clips share are matched once; their columns stand once for each of these clips.
    scores = match(frame_embeddings(raw), head, kinds=learner.config.kinds, eps=learner.config.eps)
    logits = learner.scale * scores.logits[:, columns.to(raw.device)]
    loss = symmetric_kl(logits, labels.to(raw.device))
    if loss.requires_grad:
        (weight * loss).backward()
    clips.carry_on()
    texts.carry_on()
    _once(learner, ranks)
    return float(loss.detach())


def _classes(learner: Learner, own: list[Chunk], weight: float, ranks: Ranks) -> float:
    """Clips against a class head that stands still: chunks do not know one another."""
    everyone = range(len(learner.pack))
    head = learner.head(everyone, learner.frozen_texts(everyone))
    counts = [sum(part) for part in ranks.gather([len(chunk.labels) for chunk in own])]
    total = torch.zeros((), device=learner.device)
    for chunk in own:
        share = len(chunk.labels) / sum(counts)
        loss = share * over_classes(_class_logits(learner, chunk, head), chunk.labels.to(learner.device))
        (weight * loss).backward()
        total += loss.detach()
    return float(ranks.sum(total))


def _class_logits(learner: Learner, chunk: Chunk, head: ClassHead) -> Tensor:
    frames = frame_embeddings(learner.embed_chunk(chunk))
    return learner.scale * match(frames, head, kinds=learner.config.kinds, eps=learner.config.eps).logits


class _Texts:
    """The text embeddings of a batch's classes: each rank computes some, all have all."""

    def __init__(self, learner: Learner, classes: list[int], ranks: Ranks) -> None:
        self._parts: dict[Kind, Replayed] = {}
        if not learner.trains_text:
            self.raw = learner.frozen_texts(classes)
            return
        shares = [part.tolist() for part in np.array_split(np.array(classes), ranks.world)]
        self.raw: dict[Kind, Tensor] = {}
        for kind in learner.config.kinds:
            rows = learner.text_rows(kind, shares[ranks.rank])
            part = Replayed(
                learner.embed_tokens,
                rows.split(TEXTS_AT_ONCE) if len(rows) else (),
                learns=True,
                keep=not learner.config.replay,
                like=_nothing(learner, clips=False),
            )
            counts = [int(learner.prompted[kind].mask[share].sum()) for share in shares]
            self._parts[kind] = part
            self.raw[kind] = _with_others(part.leaf, counts, ranks)

    def carry_on(self) -> None:
        for part in self._parts.values():
            part.carry_on()


def _all_labels(own: list[Chunk], ranks: Ranks) -> tuple[Tensor, list[int]]:
    """Labels [B] of the whole batch, and how many clips each rank has."""
    mine: list[int] = [label for chunk in own for label in chunk.labels.tolist()]
    parts: list[list[int]] = ranks.gather(mine)
    return torch.tensor([label for part in parts for label in part]), [len(part) for part in parts]


def _with_others(own: Tensor, counts: list[int], ranks: Ranks) -> Tensor:
    """This rank's rows, which a gradient flows to, among those of the others, in the order of ranks."""
    if ranks.world == 1:
        return own
    parts = ranks.gather_rows(own.detach(), counts)
    parts[ranks.rank] = own
    return torch.cat(parts)


def _once(learner: Learner, ranks: Ranks) -> None:
    """Of what every rank computes alike only the first rank's gradient counts, because they will be added."""
    if not ranks.first and learner.log_scale.grad is not None:
        learner.log_scale.grad.zero_()


def _nothing(learner: Learner, *, clips: bool) -> Tensor:
    shape = (0, learner.config.frames, learner.width) if clips else (0, learner.width)
    return torch.zeros(shape, device=learner.device)
