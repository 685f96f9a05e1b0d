"""Compute the gradient of one optimiser step, independent of how it is split into chunks and over ranks.

A contrastive loss needs all embeddings of its batch at once, but not all activations: the embeddings are computed
in chunks, the loss gives their gradient, and each chunk is computed again to backpropagate it (GradCache, Gao et
al., RepL4NLP 2021). Ranks exchange embeddings, never activations. Every rank computes the loss of the whole batch
and backpropagates through its own embeddings. The parameters' gradients are summed over ranks, which gives the
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
from ost.train.data import TowerBatch
from ost.train.learner import Learner
from ost.train.loss import over_classes, symmetric_kl
from ost.train.plan import Step
from ost.types import ClassHead, Kind

T = TypeVar("T")
TEXTS_AT_ONCE = 64


class Replayed:
    """Embeddings computed chunk by chunk, whose gradient is backpropagated by computing each chunk again (GradCache).

    Args:
        function: an input -> embeddings [n, ...].
        inputs: the chunks.
        learns: whether a gradient is needed.
        keep: keep the graphs of all chunks instead of computing each twice; the graph of a single chunk is always kept.
        like: empty embeddings, [0, ...].
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
        """Backpropagate the gradient of the leaf to the parameters."""
        if not self._learns or self.leaf.grad is None:
            return
        for i, grad in enumerate(self.leaf.grad.split(self._sizes) if self._sizes else ()):
            output = self._outputs[i] if self._kept else self._function(self._inputs[i])
            output.backward(grad)


def step_gradient(
    learner: Learner, step: Step, chunks: Iterator[TowerBatch], ranks: Ranks
) -> tuple[float, list[TowerBatch]]:
    """Accumulate the gradient of an optimiser step in the parameters.

    Args:
        learner: the backbone in training, with gradients cleared.
        step: the shares of this rank.
        chunks: the next chunks of the loader, in its order.
        ranks: the processes that train together.

    Returns:
        The loss, averaged over all clips of the step, and the chunks of this rank.
    """
    contrastive = learner.config.loss == "contrastive"
    total, chunks_seen = 0.0, list[TowerBatch]()
    for share in step:
        share_chunks = [next(chunks) for _ in share.chunks]
        chunks_seen += share_chunks
        if contrastive:
            loss = _contrastive(learner, share_chunks, share.weight, ranks)
        else:
            loss = _cross_entropy(learner, share_chunks, share.weight, ranks)
        total += share.weight * loss
    for parameter in learner.parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        ranks.sum(parameter.grad)
    return total, chunks_seen


def _contrastive(learner: Learner, chunks: list[TowerBatch], weight: float, ranks: Ranks) -> float:
    """Backpropagate the loss of a batch's clips against its classes, see `symmetric_kl`; return the loss."""
    labels, counts = _gather_labels(chunks, ranks)
    classes, columns = torch.unique(labels, return_inverse=True)
    rows: list[int] = classes.tolist()
    keep = not learner.config.replay
    clips = Replayed(
        learner.embed_chunk,
        chunks,
        learns=learner.trains_image,
        keep=keep,
        like=_empty_embeddings(learner, clips=True),
    )
    raw = _gather_rows(clips.leaf, counts, ranks)
    texts = _Texts(learner, rows, ranks)
    head = learner.head(rows, texts.raw)
    # A class that several clips share is matched once, and its column repeated for each of them.
    scores = match(frame_embeddings(raw), head, kinds=learner.config.kinds, eps=learner.config.eps)
    logits = learner.scale * scores.logits[:, columns.to(raw.device)]
    loss = symmetric_kl(logits, labels.to(raw.device))
    if loss.requires_grad:
        (weight * loss).backward()
    clips.carry_on()
    texts.carry_on()
    _keep_first_scale_gradient(learner, ranks)
    return float(loss.detach())


def _cross_entropy(learner: Learner, chunks: list[TowerBatch], weight: float, ranks: Ranks) -> float:
    """Backpropagate the loss of clips against a frozen class head, chunk by chunk; return the loss."""
    all_classes = range(len(learner.pack))
    head = learner.head(all_classes, learner.frozen_texts(all_classes))
    counts = [sum(part) for part in ranks.gather([len(chunk.labels) for chunk in chunks])]
    total = torch.zeros((), device=learner.device)
    for chunk in chunks:
        share = len(chunk.labels) / sum(counts)
        loss = share * over_classes(_class_logits(learner, chunk, head), chunk.labels.to(learner.device))
        (weight * loss).backward()
        total += loss.detach()
    return float(ranks.sum(total))


def _class_logits(learner: Learner, chunk: TowerBatch, head: ClassHead) -> Tensor:
    frames = frame_embeddings(learner.embed_chunk(chunk))
    return learner.scale * match(frames, head, kinds=learner.config.kinds, eps=learner.config.eps).logits


class _Texts:
    """The text embeddings of a batch's classes, computed in parts by the ranks and gathered on all."""

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
                like=_empty_embeddings(learner, clips=False),
            )
            counts = [int(learner.prompted[kind].mask[share].sum()) for share in shares]
            self._parts[kind] = part
            self.raw[kind] = _gather_rows(part.leaf, counts, ranks)

    def carry_on(self) -> None:
        for part in self._parts.values():
            part.carry_on()


def _gather_labels(chunks: list[TowerBatch], ranks: Ranks) -> tuple[Tensor, list[int]]:
    """Return the labels [B] of the whole batch, and the number of clips of each rank."""
    labels: list[int] = [label for chunk in chunks for label in chunk.labels.tolist()]
    parts: list[list[int]] = ranks.gather(labels)
    return torch.tensor([label for part in parts for label in part]), [len(part) for part in parts]


def _gather_rows(rows: Tensor, counts: list[int], ranks: Ranks) -> Tensor:
    """Gather the rows of all ranks, in the order of ranks; a gradient flows to the rows of this rank only."""
    if ranks.world == 1:
        return rows
    parts = ranks.gather_rows(rows.detach(), counts)
    parts[ranks.rank] = rows
    return torch.cat(parts)


def _keep_first_scale_gradient(learner: Learner, ranks: Ranks) -> None:
    """Zero the gradient of the logit scale on all ranks but the first.

    Every rank computes the whole of it, and the gradients are summed over ranks.
    """
    if not ranks.first and learner.log_scale.grad is not None:
        learner.log_scale.grad.zero_()


def _empty_embeddings(learner: Learner, *, clips: bool) -> Tensor:
    shape = (0, learner.config.frames, learner.width) if clips else (0, learner.width)
    return torch.zeros(shape, device=learner.device)
